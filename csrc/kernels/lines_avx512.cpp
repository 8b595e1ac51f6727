// The last loop of drawing with AVX-512, which is as long as a sheet is wide. Those before it see rows of maps, which
// are short: with AVX2 they are as fast, measured on an AMD EPYC.

#include "kernels/lines.h"
#include "target.h"

#if CNNVIZ_X86
#include <immintrin.h>

#include <algorithm>

namespace cnnviz {
namespace {

constexpr size_t ROWS_AT_ONCE_512 = 8;  // as in lines_avx2.cpp

template <bool FUSED>
CNNVIZ_TARGET_AVX512 inline __m512i entries_512(__m512 line, __m512 step, __m512 fraction, __m512 scale) {
    const __m512 half = _mm512_set1_ps(0.5f);
    const __m512 v = _mm512_add_ps(line, _mm512_mul_ps(fraction, step));
    return _mm512_cvttps_epi32(FUSED ? _mm512_fmadd_ps(v, scale, half) : _mm512_add_ps(_mm512_mul_ps(v, scale), half));
}

// 64 columns of two lines.
template <bool FUSED>
struct Columns512 {
    __m512 before[4];
    __m512 step[4];

    CNNVIZ_TARGET_AVX512 Columns512(const float* line, const float* below) {
        for (size_t k = 0; k < 4; k++) {
            before[k] = _mm512_loadu_ps(line + 16 * k);
            step[k] = _mm512_sub_ps(_mm512_loadu_ps(below + 16 * k), before[k]);
        }
    }

    CNNVIZ_TARGET_AVX512 __m512i pixels(float fraction, __m512 scale) const {
        // Packing works within 128 bits: this puts the fours of pixels back in order.
        const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        const __m512 fractions = _mm512_set1_ps(fraction);
        __m512i entries[4];
        for (size_t k = 0; k < 4; k++) entries[k] = entries_512<FUSED>(before[k], step[k], fractions, scale);
        const __m512i packed = _mm512_packus_epi16(_mm512_packs_epi32(entries[0], entries[1]),
                                                   _mm512_packs_epi32(entries[2], entries[3]));
        return _mm512_permutexvar_epi32(order, packed);
    }
};

// Columns begin..end-1 of ROWS rows: a piece of the lines is loaded once for all of them.
template <size_t ROWS, bool FUSED>
CNNVIZ_TARGET_AVX512 inline void blend_columns_512(const float* line, const float* below, size_t begin, size_t end,
                                                   const float* fractions, __m512 scale, uint8_t* out, size_t width) {
    size_t x = begin;
    for (; x + 64 <= end; x += 64) {
        const Columns512<FUSED> columns(line + x, below + x);
        for (size_t row = 0; row < ROWS; row++) {
            _mm512_storeu_si512(out + row * width + x, columns.pixels(fractions[row], scale));
        }
    }
    if (x == end) return;
    const __mmask64 live = ~__mmask64{0} >> (64 - (end - x));
    const Columns512<FUSED> columns(line + x, below + x);
    for (size_t row = 0; row < ROWS; row++) {
        _mm512_mask_storeu_epi8(out + row * width + x, live, columns.pixels(fractions[row], scale));
    }
}

// The same for any number of rows: ROWS at once while there are as many, then half as many at once, and so on.
template <size_t ROWS, bool FUSED>
CNNVIZ_TARGET_AVX512 inline void blend_piece_512(const float* line, const float* below, size_t begin, size_t end,
                                                 const float* fractions, size_t rows, __m512 scale, uint8_t* out,
                                                 size_t width) {
    size_t y = 0;
    for (; y + ROWS <= rows; y += ROWS) {
        blend_columns_512<ROWS, FUSED>(line, below, begin, end, fractions + y, scale, out + y * width, width);
    }
    if constexpr (ROWS > 1) {
        if (y == rows) return;
        blend_piece_512<ROWS / 2, FUSED>(line, below, begin, end, fractions + y, rows - y, scale, out + y * width,
                                         width);
    }
}

template <bool FUSED>
CNNVIZ_TARGET_AVX512 inline void blend_rows_512(const float* line, const float* below, size_t width,
                                                const float* fractions, size_t rows, float scale, uint8_t* out) {
    const __m512 scales = _mm512_set1_ps(scale);
    for (size_t begin = 0; begin < width; begin += PIECE_PX) {
        const size_t end = std::min(begin + PIECE_PX, width);
        blend_piece_512<ROWS_AT_ONCE_512, FUSED>(line, below, begin, end, fractions, rows, scales, out, width);
    }
}

}  // namespace

CNNVIZ_TARGET_AVX512 void blend_rows_avx512(const float* line, const float* below, size_t width, const float* fractions,
                                            size_t rows, float scale, uint8_t* out) {
    if (may_fuse(scale)) {
        blend_rows_512<true>(line, below, width, fractions, rows, scale, out);
    } else {
        blend_rows_512<false>(line, below, width, fractions, rows, scale, out);
    }
}

}  // namespace cnnviz

#endif  // CNNVIZ_X86
