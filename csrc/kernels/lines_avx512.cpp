// The inner loops of drawing with AVX-512.

#include "kernels/lines.h"
#include "target.h"

#if CNNVIZ_X86
#include <immintrin.h>

#include <algorithm>

namespace cnnviz {
namespace {

// As ROWS_AT_ONCE in lines_avx2.cpp, for rows of wider vectors.
constexpr size_t ROWS_AT_ONCE_512 = 4;

CNNVIZ_TARGET_AVX512 inline __m512i entries_512(__m512 line, __m512 step, __m512 fraction, __m512 scale) {
    const __m512 v = _mm512_add_ps(line, _mm512_mul_ps(fraction, step));
    return _mm512_cvttps_epi32(_mm512_add_ps(_mm512_mul_ps(v, scale), _mm512_set1_ps(0.5f)));
}

// 64 pixels of a row, from the two lines.
CNNVIZ_TARGET_AVX512 inline __m512i pixels_512(const __m512 (&before)[4], const __m512 (&step)[4], float fraction,
                                               __m512 scales) {
    // Packing works within 128 bits: this puts the fours of pixels back in order.
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512 fractions = _mm512_set1_ps(fraction);
    const __m512i words_0 = _mm512_packs_epi32(entries_512(before[0], step[0], fractions, scales),
                                               entries_512(before[1], step[1], fractions, scales));
    const __m512i words_1 = _mm512_packs_epi32(entries_512(before[2], step[2], fractions, scales),
                                               entries_512(before[3], step[3], fractions, scales));
    return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(words_0, words_1));
}

}  // namespace

CNNVIZ_TARGET_AVX512 bool normalize_rows_avx512(const Block& block, const Span* spans, const Rows& rows) {
    constexpr int NAN_OR_INFINITE = 0x01 | 0x08 | 0x10 | 0x80;
    __mmask16 unsound = 0;
    for (size_t row = 0; row < rows.count; row++) {
        const float* values = block.values + static_cast<ptrdiff_t>(row) * block.step;
        float* out = rows.values + row * rows.step;
        const __m512 halves = _mm512_set1_ps(spans[row].half);
        const __m512 lows = _mm512_set1_ps(spans[row].low);
        const __m512 wholes = _mm512_set1_ps(spans[row].span);
        for (size_t x = 0; x < rows.step; x += 16) {
            const size_t left = rows.step - x;
            const __mmask16 live = static_cast<__mmask16>(left >= 16 ? 0xFFFF : (1u << left) - 1);
            const __m512 value = _mm512_maskz_loadu_ps(live, values + x);
            const __mmask16 is_not_finite = _mm512_fpclass_ps_mask(value, NAN_OR_INFINITE);
            unsound |= is_not_finite;
            const __m512 v = _mm512_div_ps(_mm512_sub_ps(_mm512_mul_ps(value, halves), lows), wholes);
            const __m512 clamped = _mm512_min_ps(_mm512_max_ps(v, _mm512_setzero_ps()), _mm512_set1_ps(1.0f));
            _mm512_storeu_ps(out + x, _mm512_mask_mov_ps(clamped, is_not_finite, _mm512_set1_ps(NOTHING)));
        }
    }
    return unsound != 0;
}

CNNVIZ_TARGET_AVX512 void enlarge_rows_avx512(const Columns& columns, const Rows& rows, bool has_nan, float* out,
                                              size_t out_step) {
    if (!columns.in_blocks || has_nan) return gather_rows(columns, rows, out, out_step);
    const size_t last = columns.tile_w > 16 ? columns.tile_w - 16 : 0;
    for (size_t block = 0; block * 16 < columns.tile_w; block++) {
        const size_t x = std::min(16 * block, last);
        const __m512i offset = _mm512_loadu_si512(columns.offset + 16 * block);
        const __m512 fraction = _mm512_loadu_ps(columns.fraction + x);
        const float* values = rows.values + columns.first[block];
        for (size_t row = 0; row < rows.count; row++, values += rows.step) {
            const __m512 before = _mm512_permutexvar_ps(offset, _mm512_loadu_ps(values));
            const __m512 after = _mm512_permutexvar_ps(offset, _mm512_loadu_ps(values + 1));
            const __m512 part = _mm512_mul_ps(fraction, _mm512_sub_ps(after, before));
            _mm512_storeu_ps(out + row * out_step + x, _mm512_add_ps(before, part));
        }
    }
}

CNNVIZ_TARGET_AVX512 void blend_rows_avx512(const float* line, const float* below, size_t width, const float* fractions,
                                            size_t rows, float scale, uint8_t* out) {
    constexpr size_t PIXELS = 64;
    const __m512 scales = _mm512_set1_ps(scale);
    for (size_t piece = 0; piece < width; piece += PIECE_PX) {
        const size_t piece_end = std::min(piece + PIECE_PX, width);
        for (size_t y = 0; y < rows; y += ROWS_AT_ONCE_512) {
            const size_t end = std::min(y + ROWS_AT_ONCE_512, rows);
            for (size_t x = piece; x < piece_end; x += PIXELS) {
                __m512 before[4];
                __m512 step[4];
                for (size_t k = 0; k < 4; k++) {
                    before[k] = _mm512_loadu_ps(line + x + 16 * k);
                    step[k] = _mm512_sub_ps(_mm512_loadu_ps(below + x + 16 * k), before[k]);
                }
                if (piece_end - x >= PIXELS) {
                    for (size_t row = y; row < end; row++) {
                        const __m512i pixels = pixels_512(before, step, fractions[row], scales);
                        _mm512_storeu_si512(out + row * width + x, pixels);
                    }
                } else {
                    const __mmask64 live = ~__mmask64{0} >> (PIXELS - (piece_end - x));
                    for (size_t row = y; row < end; row++) {
                        const __m512i pixels = pixels_512(before, step, fractions[row], scales);
                        _mm512_mask_storeu_epi8(out + row * width + x, live, pixels);
                    }
                }
            }
        }
    }
}

}  // namespace cnnviz

#endif  // CNNVIZ_X86
