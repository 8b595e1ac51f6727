// Distributions: values counted in the buckets that cnnviz_fast/channels/quantile_sketch.py defines.

#pragma once

#include <cstddef>
#include <cstdint>

namespace cnnviz {

// Sign and exponent of a float32 are its octave; the top bits of its mantissa its bucket there.
constexpr size_t OCTAVES = 512;
constexpr size_t BUCKETS = 64;

// Counts `size` values of each of `channels` channels. pages: (OCTAVES,) the first column of `counts`,
// (channels, columns), for the buckets of each octave, or -1 if it has none: then missing[octave] is set. Zeros are not
// counted.
void count_values(const float* values, size_t channels, size_t size, const int64_t* pages, size_t columns,
                  int64_t* counts, bool* missing);

// Gathers the counts of `chosen` columns that are not 0, row by row: their position in `chosen`, and the count. `place`
// and `count` have room for `most`; what is beyond is left out.
void gather_nonzero(const int64_t* counts, size_t channels, size_t columns, const int64_t* chosen, size_t chosen_count,
                    size_t most, int64_t* place, int64_t* count);

}  // namespace cnnviz
