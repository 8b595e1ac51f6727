// The values of a parameter: what statistics and histograms need, in two passes.

#pragma once

#include <cstddef>
#include <cstdint>

namespace cnnviz {

// What one pass over values shows: the least and the greatest finite one (infinity and -infinity if there is none), the
// sum of the finite ones, and how many are zero, NaN, and infinite.
struct Survey {
    double least;
    double greatest;
    double total;
    int64_t zeros;
    int64_t nan;
    int64_t infinite;
};

template <class Value>
Survey survey(const Value* values, size_t count);

// Adds up the squared distances from `mean`, and counts in `counts`, (bins,), how many values lie in each bin:
// edges[k] <= value < edges[k + 1], the last bin with its upper edge. edges: (bins + 1,), each within half a bin of where
// bins of equal width have it. Every value is finite and within the edges.
template <class Value>
double spread(const Value* values, size_t count, double mean, const double* edges, size_t bins, int64_t* counts);

extern template Survey survey(const float*, size_t);
extern template Survey survey(const double*, size_t);
extern template double spread(const float*, size_t, double, const double*, size_t, int64_t*);
extern template double spread(const double*, size_t, double, const double*, size_t, int64_t*);

}  // namespace cnnviz
