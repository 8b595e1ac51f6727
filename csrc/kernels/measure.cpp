#include "kernels/measure.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "buffer.h"
#include "dispatch.h"
#include "kernels/bits.h"
#include "workers.h"

#if CNNVIZ_X86
#include <immintrin.h>
#endif

namespace cnnviz {
namespace {

// Sums are taken in LANES parts, value i in part i modulo LANES, at every level: so their rounding does not depend on
// the processor.
constexpr size_t LANES = 16;

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

// Values of the channels that a thread takes at once: 40 us of work, which is more than it takes to wake one.
constexpr size_t VALUES_AT_ONCE = size_t{1} << 17;

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

CNNVIZ_INLINE void take_in(const float* values, size_t count, int32_t* __restrict least, int32_t* __restrict greatest) {
    for (size_t c = 0; c < count; c++) {
        const int32_t key = key_of(bits_of(values[c]));
        least[c] = std::min(least[c], key);
        greatest[c] = std::max(greatest[c], key);
    }
}

}  // namespace

Keys least_and_greatest_scalar(const float* values, size_t count) { return find_keys(values, count); }

void take_in_scalar(const float* values, size_t count, int32_t* least, int32_t* greatest) {
    take_in(values, count, least, greatest);
}

Overview overview_scalar(const float* values, size_t count) {
    Parts parts = {};
    std::fill_n(parts.least, LANES, INT32_MAX);
    std::fill_n(parts.greatest, LANES, INT32_MIN);
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) add(parts, values + i, LANES);
    add(parts, values + i, count - i);
    return joined(parts);
}

double squares_scalar(const float* values, size_t count, double mean) {
    double parts[LANES] = {};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) add_squares(parts, values + i, LANES, mean);
    add_squares(parts, values + i, count - i, mean);
    return sum_of(parts);
}

#if CNNVIZ_X86
CNNVIZ_TARGET_AVX2 Keys least_and_greatest_avx2(const float* values, size_t count) { return find_keys(values, count); }
CNNVIZ_TARGET_AVX512 Keys least_and_greatest_avx512(const float* values, size_t count) {
    return find_keys(values, count);
}

CNNVIZ_TARGET_AVX2 void take_in_avx2(const float* values, size_t count, int32_t* least, int32_t* greatest) {
    take_in(values, count, least, greatest);
}
CNNVIZ_TARGET_AVX512 void take_in_avx512(const float* values, size_t count, int32_t* least, int32_t* greatest) {
    take_in(values, count, least, greatest);
}

CNNVIZ_TARGET_AVX2 Overview overview_avx2(const float* values, size_t count) {
    // Parts 0..7 and 8..15; of totals 0..3, 4..7, 8..11 and 12..15. Loops over them are unrolled.
    __m256i least[2], greatest[2], zeros[2];
    __m256d totals[4];
    for (int half = 0; half < 2; half++) {
        least[half] = _mm256_set1_epi32(INT32_MAX);
        greatest[half] = _mm256_set1_epi32(INT32_MIN);
        zeros[half] = _mm256_setzero_si256();
    }
    for (__m256d& total : totals) total = _mm256_setzero_pd();
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (int half = 0; half < 2; half++) {
            const __m256 eight = _mm256_loadu_ps(values + i + 8 * half);
            const __m256i bits = _mm256_castps_si256(eight);
            const __m256i key = _mm256_xor_si256(bits, _mm256_srli_epi32(_mm256_srai_epi32(bits, 31), 1));
            least[half] = _mm256_min_epi32(least[half], key);
            greatest[half] = _mm256_max_epi32(greatest[half], key);
            const __m256i is_zero = _mm256_cmpeq_epi32(_mm256_slli_epi32(bits, 1), _mm256_setzero_si256());
            zeros[half] = _mm256_sub_epi32(zeros[half], is_zero);
            const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(eight));
            const __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(eight, 1));
            totals[2 * half] = _mm256_add_pd(totals[2 * half], low);
            totals[2 * half + 1] = _mm256_add_pd(totals[2 * half + 1], high);
        }
    }
    Parts parts;
    for (int half = 0; half < 2; half++) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(parts.least) + half, least[half]);
        _mm256_store_si256(reinterpret_cast<__m256i*>(parts.greatest) + half, greatest[half]);
        _mm256_store_si256(reinterpret_cast<__m256i*>(parts.zeros) + half, zeros[half]);
    }
    for (int quarter = 0; quarter < 4; quarter++) _mm256_store_pd(parts.totals + 4 * quarter, totals[quarter]);
    add(parts, values + i, count - i);
    return joined(parts);
}

CNNVIZ_TARGET_AVX2 double squares_avx2(const float* values, size_t count, double mean) {
    const __m256d means = _mm256_set1_pd(mean);
    __m256d sums[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (int quarter = 0; quarter < 4; quarter++) {
            const __m256d wide = _mm256_cvtps_pd(_mm_loadu_ps(values + i + 4 * quarter));
            const __m256d distance = _mm256_sub_pd(wide, means);
            sums[quarter] = _mm256_add_pd(sums[quarter], _mm256_mul_pd(distance, distance));
        }
    }
    double parts[LANES];
    for (int quarter = 0; quarter < 4; quarter++) _mm256_storeu_pd(parts + 4 * quarter, sums[quarter]);
    add_squares(parts, values + i, count - i, mean);
    return sum_of(parts);
}

CNNVIZ_TARGET_AVX512 Overview overview_avx512(const float* values, size_t count) {
    __m512i least = _mm512_set1_epi32(INT32_MAX);
    __m512i greatest = _mm512_set1_epi32(INT32_MIN);
    __m512i zeros = _mm512_setzero_si512();
    __m512d low = _mm512_setzero_pd();
    __m512d high = _mm512_setzero_pd();
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const __m512i bits = _mm512_loadu_si512(values + i);
        const __m512i key = _mm512_xor_si512(bits, _mm512_srli_epi32(_mm512_srai_epi32(bits, 31), 1));
        least = _mm512_min_epi32(least, key);
        greatest = _mm512_max_epi32(greatest, key);
        const __mmask16 is_zero = _mm512_testn_epi32_mask(bits, _mm512_set1_epi32(INT32_MAX));
        zeros = _mm512_mask_add_epi32(zeros, is_zero, zeros, _mm512_set1_epi32(1));
        // Read from memory again rather than taken apart, which costs more.
        low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm256_loadu_ps(values + i)));
        high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm256_loadu_ps(values + i + 8)));
    }
    Parts parts;
    _mm512_store_si512(parts.least, least);
    _mm512_store_si512(parts.greatest, greatest);
    _mm512_store_si512(parts.zeros, zeros);
    _mm512_store_pd(parts.totals, low);
    _mm512_store_pd(parts.totals + 8, high);
    add(parts, values + i, count - i);
    return joined(parts);
}

CNNVIZ_TARGET_AVX512 double squares_avx512(const float* values, size_t count, double mean) {
    const __m512d means = _mm512_set1_pd(mean);
    __m512d low = _mm512_setzero_pd();
    __m512d high = _mm512_setzero_pd();
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const __m512d first = _mm512_sub_pd(_mm512_cvtps_pd(_mm256_loadu_ps(values + i)), means);
        const __m512d second = _mm512_sub_pd(_mm512_cvtps_pd(_mm256_loadu_ps(values + i + 8)), means);
        low = _mm512_add_pd(low, _mm512_mul_pd(first, first));
        high = _mm512_add_pd(high, _mm512_mul_pd(second, second));
    }
    double parts[LANES];
    _mm512_storeu_pd(parts, low);
    _mm512_storeu_pd(parts + 8, high);
    add_squares(parts, values + i, count - i, mean);
    return sum_of(parts);
}
#endif

namespace {

bool all_finite(const Keys& keys) {
    return keys.least >= key_of(bits_of(-std::numeric_limits<float>::max())) && keys.greatest <= GREATEST_FINITE;
}

void put_range(const Keys& keys, float& low, float& high) {
    const bool nothing = keys.least > keys.greatest;
    low = nothing ? std::numeric_limits<float>::quiet_NaN() : value_of(keys.least);
    high = nothing ? std::numeric_limits<float>::quiet_NaN() : value_of(keys.greatest);
}



// What of some values is finite, and what is not. Channels that are not all finite are rare: they are copied, so that
// the loops need not ask about each value.
struct Sifted {
    size_t count;
    int64_t nan;
    int64_t infinite;
};

// Writes the finite ones of `count` values to `finite`, in their order.
Sifted sift(const float* values, size_t count, float* finite) {
    Sifted found = {0, 0, 0};
    for (size_t i = 0; i < count; i += LANES) {
        const size_t next = std::min(i + LANES, count);
        int32_t greatest = 0;
        for (size_t k = i; k < next; k++) greatest = std::max(greatest, magnitude_of(values[k]));
        if (greatest <= GREATEST_FINITE) {
            std::copy(values + i, values + next, finite + found.count);
            found.count += next - i;
            continue;
        }
        for (size_t k = i; k < next; k++) {
            const int32_t magnitude = magnitude_of(values[k]);
            if (magnitude <= GREATEST_FINITE) finite[found.count++] = values[k];
            found.nan += magnitude > GREATEST_FINITE + 1;
            found.infinite += magnitude == GREATEST_FINITE + 1;
        }
    }
    return found;
}

}  // namespace

namespace {

// Finds the keys of channels that lie side by side, in the order of memory.
void find_keys_across(const Dispatch& dispatch, const Maps& maps, int32_t* least, int32_t* greatest) {
    std::fill_n(least, maps.count, INT32_MAX);
    std::fill_n(greatest, maps.count, INT32_MIN);
    for (size_t y = 0; y < maps.height; y++) {
        for (size_t x = 0; x < maps.width; x++) {
            const float* cell = static_cast<const float*>(maps.data) + static_cast<ptrdiff_t>(y) * maps.step_y +
                                static_cast<ptrdiff_t>(x) * maps.step_x;
            dispatch.measure.take_in(cell, maps.count, least, greatest);
        }
    }
}

}  // namespace

bool channel_range(const Dispatch& dispatch, const Maps& maps, float* low, float* high, int64_t* nonfinite) {
    const size_t size = maps.height * maps.width;
    const Buffer<float> finite = allocate<float>(size);
    if (!finite) return false;
    const auto see = [&](size_t c, const float* values) {
        Keys keys = dispatch.measure.least_and_greatest(values, size);
        Sifted sifted = {size, 0, 0};
        if (!all_finite(keys)) {
            sifted = sift(values, size, finite.get());
            keys = dispatch.measure.least_and_greatest(finite.get(), sifted.count);
        }
        put_range(keys, low[c], high[c]);
        if (nonfinite) nonfinite[c] = sifted.nan + sifted.infinite;
    };
    if (maps.dtype != Dtype::Float32 || maps.step_c != 1 || maps.count < LANES) {
        return for_each_channel(maps, 0, maps.count, see);
    }
    const Buffer<int32_t> ends = allocate<int32_t>(2 * maps.count);
    if (!ends) return false;
    int32_t* const least = ends.get();
    int32_t* const greatest = least + maps.count;
    find_keys_across(dispatch, maps, least, greatest);
    for (size_t c = 0; c < maps.count; c++) {
        const Keys keys = {least[c], greatest[c]};
        if (!all_finite(keys)) {
            if (!for_each_channel(maps, c, c + 1, see)) return false;
            continue;
        }
        put_range(keys, low[c], high[c]);
        if (nonfinite) nonfinite[c] = 0;
    }
    return true;
}

namespace {

bool measure_some(const Dispatch& dispatch, const Maps& maps, size_t begin, size_t end, float* finite,
                  const Measures& measures) {
    const size_t size = maps.height * maps.width;
    return for_each_channel(maps, begin, end, [&](size_t c, const float* values) {
        Sifted sifted = {size, 0, 0};
        Overview found = dispatch.measure.overview(values, size);
        if (!all_finite(found.keys)) {
            sifted = sift(values, size, finite);
            values = finite;
            found = dispatch.measure.overview(values, sifted.count);
        }
        const double count = static_cast<double>(sifted.count);
        const double mean = found.total / count;  // NaN where there is none
        put_range(found.keys, measures.low[c], measures.high[c]);
        measures.mean[c] = mean;
        measures.deviation[c] = std::sqrt(dispatch.measure.squares(values, sifted.count, mean) / count);
        measures.zeros[c] = static_cast<double>(found.zeros) / static_cast<double>(size);
        measures.nan[c] = sifted.nan;
        measures.infinite[c] = sifted.infinite;
    });
}

}  // namespace

bool channel_measures(const Dispatch& dispatch, const Maps& maps, size_t threads, const Measures& measures) {
    const size_t size = maps.height * maps.width;
    const size_t channels_at_once = (VALUES_AT_ONCE - 1) / size + 1;
    const size_t pieces = (maps.count - 1) / channels_at_once + 1;
    std::atomic<size_t> next{0};
    std::atomic<bool> enough_memory{true};
    run_in_threads(std::min(threads, pieces), [&] {
        const Buffer<float> finite = allocate<float>(size);
        if (!finite) enough_memory = false;
        for (size_t piece; enough_memory && (piece = next++) < pieces;) {
            const size_t begin = piece * channels_at_once;
            const size_t end = std::min(begin + channels_at_once, maps.count);
            if (!measure_some(dispatch, maps, begin, end, finite.get(), measures)) enough_memory = false;
        }
    });
    return enough_memory;
}

}  // namespace cnnviz
