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

// The same of `count` channels that lie side by side, a value of each at a time: takes one value of each into their keys.
void take_in_scalar(const float* values, size_t count, int32_t* least, int32_t* greatest);
void take_in_avx2(const float* values, size_t count, int32_t* least, int32_t* greatest);
void take_in_avx512(const float* values, size_t count, int32_t* least, int32_t* greatest);

// What one pass over the values of a channel shows; the sum only where all of them are finite.
struct Overview {
    Keys keys;
    double total;
    int64_t zeros;
};
Overview overview_scalar(const float* values, size_t count);
Overview overview_avx2(const float* values, size_t count);
Overview overview_avx512(const float* values, size_t count);

// Sum of the squared distances of the values, all of them finite, from `mean`.
double squares_scalar(const float* values, size_t count, double mean);
double squares_avx2(const float* values, size_t count, double mean);
double squares_avx512(const float* values, size_t count, double mean);

struct MeasureLoops {
    Keys (*least_and_greatest)(const float* values, size_t count);
    void (*take_in)(const float* values, size_t count, int32_t* least, int32_t* greatest);
    Overview (*overview)(const float* values, size_t count);
    double (*squares)(const float* values, size_t count, double mean);
};

// Fills low and high, (count,), with the least and the greatest finite value of each channel, NaN where there is none;
// and nonfinite, unless it is null, with the number of its other values. Returns false where there was no memory.
bool channel_range(const Dispatch& dispatch, const Maps& maps, float* low, float* high, int64_t* nonfinite);

// The results of channel_measures, (count,) each: range, mean and deviation (divisor n) of the finite values, NaN where
// there is none; the share of zeros; the number of NaN and of infinities.
struct Measures {
    float* low;
    float* high;
    double* mean;
    double* deviation;
    double* zeros;
    int64_t* nan;
    int64_t* infinite;
};
// `threads`: at most as many work at once.
bool channel_measures(const Dispatch& dispatch, const Maps& maps, size_t threads, const Measures& measures);

}  // namespace cnnviz
