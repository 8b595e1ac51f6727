// What the levels of measure.h have in common: keys, and sums by parts.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dispatch.h"
#include "kernels/measure.h"

namespace cnnviz {

// Sums are taken in LANES parts, value i in part i modulo LANES, at every level: so their rounding does not depend on
// the processor.
constexpr size_t LANES = 16;

constexpr int32_t GREATEST_FINITE = 0x7F7FFFFF;

CNNVIZ_INLINE int32_t bits_of(float value) {
    int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

CNNVIZ_INLINE int32_t magnitude_of(float value) { return bits_of(value) & 0x7FFFFFFF; }

CNNVIZ_INLINE bool is_finite(float value) { return magnitude_of(value) <= GREATEST_FINITE; }

// Maps the bits of a float32 to its key, and back.
CNNVIZ_INLINE int32_t key_of(int32_t bits) { return bits ^ ((bits >> 31) & 0x7FFFFFFF); }

CNNVIZ_INLINE double sum_of(const double* parts) {
    double sums[LANES / 2];
    for (size_t part = 0; part < LANES / 2; part++) sums[part] = parts[part] + parts[part + LANES / 2];
    for (size_t half = LANES / 4; half > 0; half /= 2) {
        for (size_t part = 0; part < half; part++) sums[part] += sums[part + half];
    }
    return sums[0];
}

// An Overview by parts. A part of 32 bits counts the zeros of up to 2^35 values.
struct Parts {
    alignas(64) int32_t least[LANES];
    alignas(64) int32_t greatest[LANES];
    alignas(64) int32_t zeros[LANES];
    alignas(64) double totals[LANES];
};

// Adds up to LANES values, the first of them to part 0.
CNNVIZ_INLINE void add(Parts& parts, const float* values, size_t count) {
    for (size_t part = 0; part < count; part++) {
        const int32_t key = key_of(bits_of(values[part]));
        parts.least[part] = std::min(parts.least[part], key);
        parts.greatest[part] = std::max(parts.greatest[part], key);
        parts.zeros[part] += magnitude_of(values[part]) == 0;
        parts.totals[part] += static_cast<double>(values[part]);
    }
}

CNNVIZ_INLINE Overview joined(const Parts& parts) {
    Overview found = {{INT32_MAX, INT32_MIN}, sum_of(parts.totals), 0};
    for (size_t part = 0; part < LANES; part++) {
        found.keys.least = std::min(found.keys.least, parts.least[part]);
        found.keys.greatest = std::max(found.keys.greatest, parts.greatest[part]);
        found.zeros += parts.zeros[part];
    }
    return found;
}

CNNVIZ_INLINE void add_squares(double* parts, const float* values, size_t count, double mean) {
    for (size_t part = 0; part < count; part++) {
        const double distance = static_cast<double>(values[part]) - mean;
        parts[part] += distance * distance;
    }
}

}  // namespace cnnviz
