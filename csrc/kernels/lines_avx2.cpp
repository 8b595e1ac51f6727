// The inner loops of drawing with AVX2.

#include "kernels/lines.h"
#include "target.h"

#if CNNVIZ_X86
#include <immintrin.h>

#include <algorithm>
#include <cstring>

namespace cnnviz {
namespace {

// Rows at once: a piece is then loaded once for all of them. Rows of some widths, such as 4096, fall into the same set of
// the fastest cache, which holds 8 pieces: more rows at once push one another out.
constexpr size_t ROWS_AT_ONCE = 8;

// v / span for values from 0 to span, rounded as by a division, which takes longer:
//     q = v * inverse,   q + (v - q * span) * inverse,   where products are not rounded before they are added to.
// The remainder has to be exact, which it is for values of at least 2^-101. Lower ones are, for the least span that has
// an inverse, below 2^-61 of it: their rounding moves no sum that is large enough for a pixel other than 0.
// Source: Brisebarre, Muller and Raina, Accelerating correctly rounded floating-point division when the divisor is known
// in advance, IEEE Transactions on Computers 53, 2004, algorithm 1.
CNNVIZ_TARGET_AVX2 inline __m256 quotient_256(__m256 v, __m256 span, __m256 inverse) {
    const __m256 q = _mm256_mul_ps(v, inverse);
    return _mm256_fmadd_ps(_mm256_fnmadd_ps(q, span, v), inverse, q);
}

// BY_INVERSE: see Span; a span that has an inverse is never halved.
template <bool BY_INVERSE>
CNNVIZ_TARGET_AVX2 inline __m256 normalized_256(__m256 value, Span span) {
    const __m256 low = _mm256_set1_ps(span.low);
    const __m256 whole = _mm256_set1_ps(span.span);
    const __m256 zero = _mm256_setzero_ps();
    if (BY_INVERSE) {
        const __m256 above = _mm256_min_ps(_mm256_max_ps(_mm256_sub_ps(value, low), zero), whole);
        return quotient_256(above, whole, _mm256_set1_ps(span.inverse));
    }
    const __m256 above = _mm256_sub_ps(_mm256_mul_ps(value, _mm256_set1_ps(span.half)), low);
    return _mm256_min_ps(_mm256_max_ps(_mm256_div_ps(above, whole), zero), _mm256_set1_ps(1.0f));
}

// Normalises a row whose values are all finite. Returns 0, or in some lanes NaN where one is not.
template <bool BY_INVERSE>
CNNVIZ_TARGET_AVX2 inline __m256 normalize_row_256(const float* values, Span span, size_t count, float* out) {
    const __m256 zero = _mm256_setzero_ps();
    if (count < 8) {
        const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        const __m256i live = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
        const __m256 value = _mm256_maskload_ps(values, live);
        _mm256_storeu_ps(out, normalized_256<BY_INVERSE>(value, span));
        return _mm256_mul_ps(value, zero);
    }
    __m256 unsound = zero;
    const auto normalize_eight = [&](size_t x) CNNVIZ_TARGET_AVX2 {
        const __m256 value = _mm256_loadu_ps(values + x);
        unsound = _mm256_fmadd_ps(value, zero, unsound);
        _mm256_storeu_ps(out + x, normalized_256<BY_INVERSE>(value, span));
    };
    for (size_t x = 0; x + 8 < count; x += 8) normalize_eight(x);
    normalize_eight(count - 8);  // ends with the row
    return unsound;
}

// A block of columns of all rows. IN_FOURS: within 128 bits a permutation costs half as much.
template <bool IN_FOURS>
CNNVIZ_TARGET_AVX2 inline void enlarge_block_256(__m256i offset, __m256 fraction, const float* values, size_t step,
                                                 size_t count, float* out, size_t out_step) {
    for (size_t row = 0; row < count; row++, values += step, out += out_step) {
        __m256 before;
        __m256 after;
        if (IN_FOURS) {
            before = _mm256_permutevar_ps(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(values)), offset);
            after = _mm256_permutevar_ps(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(values + 1)), offset);
        } else {
            before = _mm256_permutevar8x32_ps(_mm256_loadu_ps(values), offset);
            after = _mm256_permutevar8x32_ps(_mm256_loadu_ps(values + 1), offset);
        }
        const __m256 part = _mm256_mul_ps(fraction, _mm256_sub_ps(after, before));
        _mm256_storeu_ps(out, _mm256_add_ps(before, part));
    }
}

// Rows twice as long, two values from each column on: half of the loads, and no permutation by an index. ON_COLUMNS: the
// first of the two lies on the column itself.
template <bool ON_COLUMNS>
CNNVIZ_TARGET_AVX2 inline void double_rows_256(const Columns& columns, const Rows& rows, float* out, size_t out_step) {
    const size_t lead = columns.pairs_begin;
    const size_t last = columns.tile_w / 2 - 1;
    const __m256 fraction_0 = _mm256_set1_ps(columns.fraction[lead]);
    const __m256 fraction_1 = _mm256_set1_ps(columns.fraction[lead + 1]);
    for (size_t row = 0; row < rows.count; row++, out += out_step) {
        const float* values = rows.values + row * rows.step;
        out[0] = values[0];
        for (size_t begin = 0; begin < last; begin += 8) {
            const size_t x = std::min(begin, last - 8);
            const __m256 before = _mm256_loadu_ps(values + x);
            const __m256 step = _mm256_sub_ps(_mm256_loadu_ps(values + x + 1), before);
            const __m256 first = ON_COLUMNS ? before : _mm256_add_ps(before, _mm256_mul_ps(fraction_0, step));
            const __m256 second = _mm256_add_ps(before, _mm256_mul_ps(fraction_1, step));
            const __m256 low = _mm256_unpacklo_ps(first, second);
            const __m256 high = _mm256_unpackhi_ps(first, second);
            _mm256_storeu_ps(out + lead + 2 * x, _mm256_permute2f128_ps(low, high, 0x20));
            _mm256_storeu_ps(out + lead + 2 * x + 8, _mm256_permute2f128_ps(low, high, 0x31));
        }
        for (size_t x = lead + 2 * last; x < columns.tile_w; x++) out[x] = values[last];
    }
}

// floor(v * scale + 0.5), where FUSED rounded once instead of twice.
template <bool FUSED>
CNNVIZ_TARGET_AVX2 inline __m256i entries_256(__m256 v, __m256 scale) {
    const __m256 half = _mm256_set1_ps(0.5f);
    return _mm256_cvttps_epi32(FUSED ? _mm256_fmadd_ps(v, scale, half) : _mm256_add_ps(_mm256_mul_ps(v, scale), half));
}

// 32 columns of two lines. Packing takes four pixels each from the lower halves of four vectors, then from the upper
// ones. They are put in order before that, while they are loaded, or afterwards, which costs less if there are few rows.
template <bool LOADED_IN_ORDER, bool FUSED>
struct Columns256 {
    __m256 before[4];
    __m256 step[4];

    CNNVIZ_TARGET_AVX2 Columns256(const float* line, const float* below) {
        for (size_t k = 0; k < 4; k++) {
            before[k] = load(line, k);
            step[k] = _mm256_sub_ps(load(below, k), before[k]);
        }
    }

    CNNVIZ_TARGET_AVX2 static __m256 load(const float* line, size_t k) {
        if (!LOADED_IN_ORDER) return _mm256_loadu_ps(line + 8 * k);
        const __m256 lower = _mm256_castps128_ps256(_mm_loadu_ps(line + 4 * k));
        return _mm256_insertf128_ps(lower, _mm_loadu_ps(line + 16 + 4 * k), 1);
    }

    CNNVIZ_TARGET_AVX2 __m256i pixels(__m256 fraction, __m256 scale) const {
        __m256i entries[4];
        for (size_t k = 0; k < 4; k++) {
            entries[k] = entries_256<FUSED>(_mm256_add_ps(before[k], _mm256_mul_ps(fraction, step[k])), scale);
        }
        return packed(entries);
    }

    // The same for a fraction of 0.
    CNNVIZ_TARGET_AVX2 __m256i pixels_on_line(__m256 scale) const {
        __m256i entries[4];
        for (size_t k = 0; k < 4; k++) entries[k] = entries_256<FUSED>(before[k], scale);
        return packed(entries);
    }

    CNNVIZ_TARGET_AVX2 static __m256i packed(const __m256i (&entries)[4]) {
        const __m256i packed = _mm256_packus_epi16(_mm256_packs_epi32(entries[0], entries[1]),
                                                   _mm256_packs_epi32(entries[2], entries[3]));
        if (LOADED_IN_ORDER) return packed;
        return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    }
};

// Columns begin..end-1 of ROWS rows: a piece of the lines is loaded once for all of them. ON_LINE: the first row lies on
// `line` itself, its fraction is 0.
template <size_t ROWS, bool FUSED, bool ON_LINE>
CNNVIZ_TARGET_AVX2 inline void blend_columns_256(const float* line, const float* below, size_t begin, size_t end,
                                                 const float* fractions, __m256 scale, uint8_t* out, size_t width) {
    using Loaded = Columns256<(ROWS >= 4), FUSED>;
    size_t x = begin;
    for (; x + 32 <= end; x += 32) {
        const Loaded columns(line + x, below + x);
        if (ON_LINE) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + x), columns.pixels_on_line(scale));
        }
        for (size_t row = ON_LINE; row < ROWS; row++) {
            const __m256i pixels = columns.pixels(_mm256_broadcast_ss(fractions + row), scale);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + row * width + x), pixels);
        }
    }
    if (x == end) return;
    const Loaded columns(line + x, below + x);
    for (size_t row = 0; row < ROWS; row++) {
        const __m256i pixels = columns.pixels(_mm256_broadcast_ss(fractions + row), scale);
        std::memcpy(out + row * width + x, &pixels, end - x);
    }
}

// The same for any number of rows: ROWS at once while there are as many, then half as many at once, and so on.
template <size_t ROWS, bool FUSED, bool ON_LINE>
CNNVIZ_TARGET_AVX2 inline void blend_piece_256(const float* line, const float* below, size_t begin, size_t end,
                                               const float* fractions, size_t rows, __m256 scale, uint8_t* out,
                                               size_t width) {
    if (rows >= ROWS) {
        blend_columns_256<ROWS, FUSED, ON_LINE>(line, below, begin, end, fractions, scale, out, width);
        size_t y = ROWS;
        for (; y + ROWS <= rows; y += ROWS) {
            blend_columns_256<ROWS, FUSED, false>(line, below, begin, end, fractions + y, scale, out + y * width,
                                                  width);
        }
        if constexpr (ROWS > 1) {
            if (y == rows) return;
            blend_piece_256<ROWS / 2, FUSED, false>(line, below, begin, end, fractions + y, rows - y, scale,
                                                    out + y * width, width);
        }
    } else if constexpr (ROWS > 1) {
        blend_piece_256<ROWS / 2, FUSED, ON_LINE>(line, below, begin, end, fractions, rows, scale, out, width);
    }
}

template <bool FUSED>
CNNVIZ_TARGET_AVX2 inline void blend_rows_256(const float* line, const float* below, size_t width,
                                              const float* fractions, size_t rows, float scale, uint8_t* out) {
    for (size_t begin = 0; begin < width; begin += PIECE_PX) {
        const size_t end = std::min(begin + PIECE_PX, width);
        const __m256 scales = _mm256_set1_ps(scale);
        if (fractions[0] == 0) {
            blend_piece_256<ROWS_AT_ONCE, FUSED, true>(line, below, begin, end, fractions, rows, scales, out, width);
        } else {
            blend_piece_256<ROWS_AT_ONCE, FUSED, false>(line, below, begin, end, fractions, rows, scales, out, width);
        }
    }
}

}  // namespace

CNNVIZ_TARGET_AVX2 bool normalize_rows_avx2(const Block& block, const Span* spans, const Rows& rows) {
    __m256 unsound = _mm256_setzero_ps();
    for (size_t row = 0; row < rows.count; row++) {
        const float* values = block.values + static_cast<ptrdiff_t>(row) * block.step;
        float* out = rows.values + row * rows.step;
        const __m256 nothing = spans[row].inverse != 0 ? normalize_row_256<true>(values, spans[row], rows.step, out)
                                                       : normalize_row_256<false>(values, spans[row], rows.step, out);
        unsound = _mm256_add_ps(unsound, nothing);
    }
    if (_mm256_movemask_ps(_mm256_cmp_ps(unsound, unsound, _CMP_UNORD_Q)) == 0) return false;
    return normalize_rows_scalar(block, spans, rows);
}

CNNVIZ_TARGET_AVX2 void enlarge_rows_avx2(const Columns& columns, const Rows& rows, bool has_nan, float* out,
                                          size_t out_step) {
    if (!columns.in_blocks || has_nan) return gather_rows(columns, rows, out, out_step);
    if (columns.in_pairs) {
        const bool on_columns = columns.fraction[columns.pairs_begin] == 0;
        return on_columns ? double_rows_256<true>(columns, rows, out, out_step)
                          : double_rows_256<false>(columns, rows, out, out_step);
    }
    const size_t last = columns.tile_w > 8 ? columns.tile_w - 8 : 0;
    for (size_t block = 0; block * 8 < columns.tile_w; block++) {
        const size_t x = std::min(8 * block, last);
        const __m256i offset = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns.offset + 8 * block));
        const __m256 fraction = _mm256_loadu_ps(columns.fraction + x);
        const float* values = rows.values + columns.first[block];
        if (columns.in_fours) {
            enlarge_block_256<true>(offset, fraction, values, rows.step, rows.count, out + x, out_step);
        } else {
            enlarge_block_256<false>(offset, fraction, values, rows.step, rows.count, out + x, out_step);
        }
    }
}

CNNVIZ_TARGET_AVX2 bool may_fuse(float scale) {
    const __m256i near = _mm256_castps_si256(_mm256_set1_ps(0.5f / scale));
    const __m256 v = _mm256_castsi256_ps(_mm256_add_epi32(near, _mm256_setr_epi32(-4, -3, -2, -1, 0, 1, 2, 3)));
    const __m256 scales = _mm256_set1_ps(scale);
    const __m256i same = _mm256_cmpeq_epi32(entries_256<true>(v, scales), entries_256<false>(v, scales));
    return _mm256_movemask_epi8(same) == -1;
}

CNNVIZ_TARGET_AVX2 void blend_rows_avx2(const float* line, const float* below, size_t width, const float* fractions,
                                        size_t rows, float scale, uint8_t* out) {
    if (may_fuse(scale)) {
        blend_rows_256<true>(line, below, width, fractions, rows, scale, out);
    } else {
        blend_rows_256<false>(line, below, width, fractions, rows, scale, out);
    }
}

}  // namespace cnnviz

#endif  // CNNVIZ_X86
