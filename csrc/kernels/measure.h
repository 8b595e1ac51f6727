// What the channels of a layer hold: range, mean, deviation, zeros, NaN and infinities.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/maps.h"

namespace cnnviz {

struct Dispatch;

// The least and the greatest of float32 values by their keys: integers of the same order as the values. The key of a
// NaN is outside those of the infinities.
struct Keys {
    int32_t least;
    int32_t greatest;
};
Keys least_and_greatest_scalar(const float* values, size_t count);
Keys least_and_greatest_avx2(const float* values, size_t count);
Keys least_and_greatest_avx512(const float* values, size_t count);

// Sum of the finite values, and how many values are zero, NaN, and infinite.
struct Sums {
    double total;
    int64_t zeros;
    int64_t nan;
    int64_t infinite;
};
Sums sums_scalar(const float* values, size_t count);
Sums sums_avx2(const float* values, size_t count);
Sums sums_avx512(const float* values, size_t count);

// Sum of the squared distances of the finite values from `mean`.
double squares_scalar(const float* values, size_t count, double mean);
double squares_avx2(const float* values, size_t count, double mean);
double squares_avx512(const float* values, size_t count, double mean);

struct MeasureLoops {
    Keys (*least_and_greatest)(const float* values, size_t count);
    Sums (*sums)(const float* values, size_t count);
    double (*squares)(const float* values, size_t count, double mean);
};

// Fills low and high, (count,), with the least and the greatest finite value of each channel; NaN where there is none.
// Returns false where there was no memory.
bool channel_range(const Dispatch& dispatch, const Maps& maps, float* low, float* high);

// The results of channel_moments, (count,) each: mean and deviation (divisor n) of the finite values, NaN where there is
// none; the share of zeros; the number of NaN and of infinities.
struct Moments {
    double* mean;
    double* deviation;
    double* zeros;
    int64_t* nan;
    int64_t* infinite;
};
bool channel_moments(const Dispatch& dispatch, const Maps& maps, const Moments& moments);

}  // namespace cnnviz
