#include "kernels/measure.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "dispatch.h"

namespace cnnviz {
namespace {

// Sums are taken in LANES parts, value i in part i modulo LANES, at every level: so their rounding does not depend on
// the processor, and the compiler makes vectors of the parts.
constexpr size_t LANES = 16;

constexpr int32_t GREATEST_FINITE = 0x7F7FFFFF;

CNNVIZ_INLINE int32_t bits_of(float value) {
    int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

CNNVIZ_INLINE bool is_finite(float value) { return (bits_of(value) & 0x7FFFFFFF) <= GREATEST_FINITE; }

// Maps the bits of a float32 to its key, and back.
CNNVIZ_INLINE int32_t key_of(int32_t bits) { return bits ^ ((bits >> 31) & 0x7FFFFFFF); }

float value_of(int32_t key) {
    const int32_t bits = key_of(key);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

CNNVIZ_INLINE Keys find_keys(const float* values, size_t count) {
    int32_t least = INT32_MAX;
    int32_t greatest = INT32_MIN;
    for (size_t i = 0; i < count; i++) {
        const int32_t key = key_of(bits_of(values[i]));
        least = std::min(least, key);
        greatest = std::max(greatest, key);
    }
    return {least, greatest};
}

// Adds up `values` by parts: add(value, part) for each of them.
template <class Add>
CNNVIZ_INLINE void for_each_part(const float* values, size_t count, Add add) {
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t part = 0; part < LANES; part++) add(values[i + part], part);
    }
    for (size_t part = 0; i + part < count; part++) add(values[i + part], part);
}

CNNVIZ_INLINE double sum_of(const double* parts) {
    double sum = 0;
    for (size_t part = 0; part < LANES; part++) sum += parts[part];
    return sum;
}

CNNVIZ_INLINE Sums add_up(const float* values, size_t count) {
    double totals[LANES] = {};
    for_each_part(values, count, [&totals](float value, size_t part) {
        totals[part] += static_cast<double>(is_finite(value) ? value : 0.0f);
    });
    // In 32 bits, which make twice as many lanes; hence the pieces.
    constexpr size_t PIECE = size_t{1} << 30;
    Sums sums = {sum_of(totals), 0, 0, 0};
    for (size_t begin = 0; begin < count; begin += PIECE) {
        int32_t zeros = 0;
        int32_t nan = 0;
        int32_t infinite = 0;
        for (size_t i = begin; i < std::min(begin + PIECE, count); i++) {
            const int32_t magnitude = bits_of(values[i]) & 0x7FFFFFFF;
            zeros += magnitude == 0;
            nan += magnitude > GREATEST_FINITE + 1;
            infinite += magnitude == GREATEST_FINITE + 1;
        }
        sums.zeros += zeros;
        sums.nan += nan;
        sums.infinite += infinite;
    }
    return sums;
}

CNNVIZ_INLINE double add_squares(const float* values, size_t count, double mean) {
    double parts[LANES] = {};
    for_each_part(values, count, [&parts, mean](float value, size_t part) {
        const double distance = is_finite(value) ? static_cast<double>(value) - mean : 0.0;
        parts[part] += distance * distance;
    });
    return sum_of(parts);
}

}  // namespace

Keys least_and_greatest_scalar(const float* values, size_t count) { return find_keys(values, count); }
Sums sums_scalar(const float* values, size_t count) { return add_up(values, count); }
double squares_scalar(const float* values, size_t count, double mean) { return add_squares(values, count, mean); }

#if CNNVIZ_X86
CNNVIZ_TARGET_AVX2 Keys least_and_greatest_avx2(const float* values, size_t count) { return find_keys(values, count); }
CNNVIZ_TARGET_AVX2 Sums sums_avx2(const float* values, size_t count) { return add_up(values, count); }
CNNVIZ_TARGET_AVX2 double squares_avx2(const float* values, size_t count, double mean) {
    return add_squares(values, count, mean);
}
CNNVIZ_TARGET_AVX512 Keys least_and_greatest_avx512(const float* values, size_t count) {
    return find_keys(values, count);
}
CNNVIZ_TARGET_AVX512 Sums sums_avx512(const float* values, size_t count) { return add_up(values, count); }
CNNVIZ_TARGET_AVX512 double squares_avx512(const float* values, size_t count, double mean) {
    return add_squares(values, count, mean);
}
#endif

bool channel_range(const Dispatch& dispatch, const Maps& maps, float* low, float* high) {
    const size_t size = maps.height * maps.width;
    return for_each_channel(maps, [&](size_t c, const float* values) {
        Keys keys = dispatch.measure.least_and_greatest(values, size);
        if (keys.least < key_of(bits_of(-std::numeric_limits<float>::max())) || keys.greatest > GREATEST_FINITE) {
            keys = {INT32_MAX, INT32_MIN};
            for (size_t i = 0; i < size; i++) {
                if (!is_finite(values[i])) continue;
                const int32_t key = key_of(bits_of(values[i]));
                keys = {std::min(keys.least, key), std::max(keys.greatest, key)};
            }
        }
        const bool nothing = keys.least > keys.greatest;
        low[c] = nothing ? std::numeric_limits<float>::quiet_NaN() : value_of(keys.least);
        high[c] = nothing ? std::numeric_limits<float>::quiet_NaN() : value_of(keys.greatest);
    });
}

bool channel_moments(const Dispatch& dispatch, const Maps& maps, const Moments& moments) {
    const size_t size = maps.height * maps.width;
    return for_each_channel(maps, [&](size_t c, const float* values) {
        const Sums sums = dispatch.measure.sums(values, size);
        const double finite = static_cast<double>(static_cast<int64_t>(size) - sums.nan - sums.infinite);
        const double mean = sums.total / finite;  // NaN where there is none
        moments.mean[c] = mean;
        moments.deviation[c] = std::sqrt(dispatch.measure.squares(values, size, mean) / finite);
        moments.zeros[c] = static_cast<double>(sums.zeros) / static_cast<double>(size);
        moments.nan[c] = sums.nan;
        moments.infinite[c] = sums.infinite;
    });
}

}  // namespace cnnviz
