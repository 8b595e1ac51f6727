#include "encoder/filter.h"

#include <algorithm>
#include <cstring>

#include "target.h"

#if CNNVIZ_X86
#include <immintrin.h>
#endif

namespace cnnviz {
namespace {

// Paeth predicts by whichever of left, above and above-left is nearest to estimate = left + above - above_left; the
// first of them in this order when two are. With low <= high for the smaller and the larger of left and above, and c
// for above-left, the distances of the estimate are |c - low| to high, |high - c| to low and |low + high - 2c| to c, so
// that the nearest is
//     high  when  2 (c - low) <= high - c    (c in the lower third of [low, high], or below it),
//     low   when  2 (high - c) <= c - low    (c in the upper third, or above it),
//     c     otherwise;
// both conditions hold only for low = high, and on their borders the tie goes to left or above as it should. Eight bits
// are enough: a negative difference may be cut to 0, which leaves each comparison as it is, and a doubled one that
// would reach 256 may be any number above 127, since the two add up to at most 255 and the other is thus at most 127.
// test_filter_paeth_all_triples compares all 2^24 inputs with the definition.

uint8_t difference_or_0(uint8_t x, uint8_t y) { return static_cast<uint8_t>(std::max(x, y) - y); }

uint8_t doubled(uint8_t x) { return static_cast<uint8_t>(2 * std::min<uint8_t>(x, 127)); }

uint8_t paeth_prediction(uint8_t left, uint8_t above, uint8_t above_left) {
    const uint8_t low = std::min(left, above);
    const uint8_t high = std::max(left, above);
    const uint8_t over_low = difference_or_0(above_left, low);
    const uint8_t under_high = difference_or_0(high, above_left);
    const uint8_t low_or_corner = doubled(under_high) <= over_low ? low : above_left;
    return doubled(over_low) <= under_high ? high : low_or_corner;
}

// The first pixel has no left neighbour: left and above-left are 0, where Sub is None and Paeth is Up.
void filter_first_pixel(Filter filter, const uint8_t* row, const uint8_t* above, size_t count, uint8_t* residuals) {
    const bool upwards = filter == Filter::Up || filter == Filter::Paeth;
    for (size_t i = 0; i < count; i++) residuals[i] = static_cast<uint8_t>(row[i] - (upwards ? above[i] : 0));
}

template <Filter FILTER>
void filter_bytes(const uint8_t* row, const uint8_t* above, size_t begin, size_t end, size_t left, uint8_t* residuals) {
    for (size_t i = begin; i < end; i++) {
        uint8_t prediction = 0;
        if constexpr (FILTER == Filter::Sub) prediction = row[i - left];
        if constexpr (FILTER == Filter::Up) prediction = above[i];
        if constexpr (FILTER == Filter::Paeth) prediction = paeth_prediction(row[i - left], above[i], above[i - left]);
        residuals[i] = static_cast<uint8_t>(row[i] - prediction);
    }
}

}  // namespace

void filter_row_scalar(Filter filter, const uint8_t* row, const uint8_t* above, size_t row_bytes,
                       size_t bytes_per_pixel, uint8_t* residuals) {
    if (filter == Filter::None) {
        std::memcpy(residuals, row, row_bytes);
        return;
    }
    const size_t first = std::min(bytes_per_pixel, row_bytes);
    filter_first_pixel(filter, row, above, first, residuals);
    if (filter == Filter::Sub) filter_bytes<Filter::Sub>(row, above, first, row_bytes, bytes_per_pixel, residuals);
    if (filter == Filter::Up) filter_bytes<Filter::Up>(row, above, first, row_bytes, bytes_per_pixel, residuals);
    if (filter == Filter::Paeth) filter_bytes<Filter::Paeth>(row, above, first, row_bytes, bytes_per_pixel, residuals);
}

#if CNNVIZ_X86

namespace {

CNNVIZ_TARGET_AVX2 inline __m256i load256(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

CNNVIZ_TARGET_AVX2 inline __m256i paeth_256(__m256i left, __m256i above, __m256i above_left) {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i low = _mm256_min_epu8(left, above);
    const __m256i high = _mm256_max_epu8(left, above);
    const __m256i over_low = _mm256_subs_epu8(above_left, low);
    const __m256i under_high = _mm256_subs_epu8(high, above_left);
    const __m256i take_low =
        _mm256_cmpeq_epi8(_mm256_subs_epu8(_mm256_adds_epu8(under_high, under_high), over_low), zero);
    const __m256i take_high =
        _mm256_cmpeq_epi8(_mm256_subs_epu8(_mm256_adds_epu8(over_low, over_low), under_high), zero);
    return _mm256_blendv_epi8(_mm256_blendv_epi8(above_left, low, take_low), high, take_high);
}

template <Filter FILTER>
CNNVIZ_TARGET_AVX2 inline __m256i residual_256(const uint8_t* row, const uint8_t* above, size_t i, size_t left) {
    __m256i prediction;
    if constexpr (FILTER == Filter::Sub) prediction = load256(row + i - left);
    if constexpr (FILTER == Filter::Up) prediction = load256(above + i);
    if constexpr (FILTER == Filter::Paeth) {
        prediction = paeth_256(load256(row + i - left), load256(above + i), load256(above + i - left));
    }
    return _mm256_sub_epi8(load256(row + i), prediction);
}

template <Filter FILTER>
CNNVIZ_TARGET_AVX2 void filter_row_256(const uint8_t* row, const uint8_t* above, size_t row_bytes, size_t left,
                                       uint8_t* residuals) {
    filter_first_pixel(FILTER, row, above, left, residuals);
    size_t i = left;
    for (; i + 32 <= row_bytes; i += 32) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(residuals + i), residual_256<FILTER>(row, above, i, left));
    }
    // The last vector ends with the row and may write some residuals a second time.
    if (i < row_bytes) {
        i = row_bytes - 32;
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(residuals + i), residual_256<FILTER>(row, above, i, left));
    }
}

CNNVIZ_TARGET_AVX512 inline __m512i paeth_512(__m512i left, __m512i above, __m512i above_left) {
    const __m512i low = _mm512_min_epu8(left, above);
    const __m512i high = _mm512_max_epu8(left, above);
    const __m512i over_low = _mm512_subs_epu8(above_left, low);
    const __m512i under_high = _mm512_subs_epu8(high, above_left);
    const __mmask64 take_low = _mm512_cmple_epu8_mask(_mm512_adds_epu8(under_high, under_high), over_low);
    const __mmask64 take_high = _mm512_cmple_epu8_mask(_mm512_adds_epu8(over_low, over_low), under_high);
    return _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(above_left, take_low, low), take_high, high);
}

template <Filter FILTER>
CNNVIZ_TARGET_AVX512 inline __m512i residual_512(const uint8_t* row, const uint8_t* above, size_t i, size_t left,
                                                 __mmask64 live) {
    __m512i prediction;
    if constexpr (FILTER == Filter::Sub) prediction = _mm512_maskz_loadu_epi8(live, row + i - left);
    if constexpr (FILTER == Filter::Up) prediction = _mm512_maskz_loadu_epi8(live, above + i);
    if constexpr (FILTER == Filter::Paeth) {
        prediction = paeth_512(_mm512_maskz_loadu_epi8(live, row + i - left), _mm512_maskz_loadu_epi8(live, above + i),
                               _mm512_maskz_loadu_epi8(live, above + i - left));
    }
    return _mm512_sub_epi8(_mm512_maskz_loadu_epi8(live, row + i), prediction);
}

template <Filter FILTER>
CNNVIZ_TARGET_AVX512 void filter_row_512(const uint8_t* row, const uint8_t* above, size_t row_bytes, size_t left,
                                         uint8_t* residuals) {
    // Vectors start at multiples of 64, since one across two cache lines costs twice. The first leaves out the first
    // pixel.
    filter_first_pixel(FILTER, row, above, left, residuals);
    const __mmask64 after_first = ~__mmask64{0} << left;
    const __mmask64 before_end = row_bytes < 64 ? ~(~__mmask64{0} << row_bytes) : ~__mmask64{0};
    const __mmask64 first = after_first & before_end;
    _mm512_mask_storeu_epi8(residuals, first, residual_512<FILTER>(row, above, 0, left, first));
    size_t i = 64;
    for (; i + 64 <= row_bytes; i += 64) {
        _mm512_storeu_si512(residuals + i, residual_512<FILTER>(row, above, i, left, ~__mmask64{0}));
    }
    if (i < row_bytes) {
        const __mmask64 live = ~__mmask64{0} >> (64 - (row_bytes - i));
        _mm512_mask_storeu_epi8(residuals + i, live, residual_512<FILTER>(row, above, i, left, live));
    }
}

}  // namespace

void filter_row_avx2(Filter filter, const uint8_t* row, const uint8_t* above, size_t row_bytes, size_t bytes_per_pixel,
                     uint8_t* residuals) {
    // The vector that ends with the row must not begin before its second pixel.
    if (filter == Filter::None || row_bytes < bytes_per_pixel + 32) {
        filter_row_scalar(filter, row, above, row_bytes, bytes_per_pixel, residuals);
    } else if (filter == Filter::Sub) {
        filter_row_256<Filter::Sub>(row, above, row_bytes, bytes_per_pixel, residuals);
    } else if (filter == Filter::Up) {
        filter_row_256<Filter::Up>(row, above, row_bytes, bytes_per_pixel, residuals);
    } else {
        filter_row_256<Filter::Paeth>(row, above, row_bytes, bytes_per_pixel, residuals);
    }
}

void filter_row_avx512(Filter filter, const uint8_t* row, const uint8_t* above, size_t row_bytes,
                       size_t bytes_per_pixel, uint8_t* residuals) {
    if (filter == Filter::None || row_bytes <= bytes_per_pixel || bytes_per_pixel >= 64) {
        filter_row_scalar(filter, row, above, row_bytes, bytes_per_pixel, residuals);
    } else if (filter == Filter::Sub) {
        filter_row_512<Filter::Sub>(row, above, row_bytes, bytes_per_pixel, residuals);
    } else if (filter == Filter::Up) {
        filter_row_512<Filter::Up>(row, above, row_bytes, bytes_per_pixel, residuals);
    } else {
        filter_row_512<Filter::Paeth>(row, above, row_bytes, bytes_per_pixel, residuals);
    }
}

#endif  // CNNVIZ_X86

}  // namespace cnnviz
