// The inner loops of drawing with NEON. Products and sums are instructions of their own: none is fused.

#include "kernels/lines.h"
#include "target.h"

#if CNNVIZ_NEON
#include <arm_neon.h>

#include <algorithm>
#include <cstring>

namespace cnnviz {
namespace {

// Columns of a block of enlarge_rows.
constexpr size_t BLOCK = 8;

// Pixels of two lines that are loaded and blended at once.
constexpr size_t PIXELS = 16;

// Caches of these processors hold four pieces of rows that fall into the same set.
constexpr size_t ROWS_AT_ONCE_NEON = 4;

inline float32x4_t between(float32x4_t before, float32x4_t after, float32x4_t fraction) {
    return vaddq_f32(before, vmulq_f32(fraction, vsubq_f32(after, before)));
}

// Chooses among the values of a table by places in bytes.
inline float32x4_t choose(uint8x16_t table, uint8x16_t bytes) {
    return vreinterpretq_f32_u8(vqtbl1q_u8(table, bytes));
}
inline float32x4_t choose(uint8x16x2_t table, uint8x16_t bytes) {
    return vreinterpretq_f32_u8(vqtbl2q_u8(table, bytes));
}

inline uint8x16_t load_four(const float* values) { return vreinterpretq_u8_f32(vld1q_f32(values)); }
inline uint8x16x2_t load_eight(const float* values) { return {{load_four(values), load_four(values + 4)}}; }

// The bytes of the values at offset[0..3].
inline uint8x16_t bytes_of(const int32_t* offset) {
    const uint32x4_t fours = vmulq_n_u32(vreinterpretq_u32_s32(vld1q_s32(offset)), 0x04040404);
    return vreinterpretq_u8_u32(vaddq_u32(fours, vdupq_n_u32(0x03020100)));
}

// A block of columns of all rows. LOAD reads the four or the eight values that all samples lie within.
template <class Load>
inline void enlarge_block(const int32_t* offset, const float* fraction, const Load& load, const float* values,
                          const Rows& rows, float* out, size_t out_step) {
    const uint8x16_t bytes_0 = bytes_of(offset);
    const uint8x16_t bytes_1 = bytes_of(offset + 4);
    const float32x4_t fraction_0 = vld1q_f32(fraction);
    const float32x4_t fraction_1 = vld1q_f32(fraction + 4);
    for (size_t row = 0; row < rows.count; row++, values += rows.step, out += out_step) {
        const auto before = load(values);
        const auto after = load(values + 1);
        vst1q_f32(out, between(choose(before, bytes_0), choose(after, bytes_0), fraction_0));
        vst1q_f32(out + 4, between(choose(before, bytes_1), choose(after, bytes_1), fraction_1));
    }
}

// Rows twice as long, two values from each column on.
void double_rows(const Columns& columns, const Rows& rows, float* out, size_t out_step) {
    const size_t lead = columns.pairs_begin;
    const size_t last = columns.tile_w / 2 - 1;
    const float32x4_t fraction_0 = vdupq_n_f32(columns.fraction[lead]);
    const float32x4_t fraction_1 = vdupq_n_f32(columns.fraction[lead + 1]);
    for (size_t row = 0; row < rows.count; row++, out += out_step) {
        const float* values = rows.values + row * rows.step;
        out[0] = values[0];
        for (size_t begin = 0; begin < last; begin += 4) {
            const size_t x = std::min(begin, last - 4);
            const float32x4_t before = vld1q_f32(values + x);
            const float32x4_t after = vld1q_f32(values + x + 1);
            vst2q_f32(out + lead + 2 * x, {{between(before, after, fraction_0), between(before, after, fraction_1)}});
        }
        for (size_t x = lead + 2 * last; x < columns.tile_w; x++) out[x] = values[last];
    }
}

struct PixelsOfTwoLines {
    float32x4_t before[4];
    float32x4_t step[4];

    PixelsOfTwoLines(const float* line, const float* below) {
        for (size_t k = 0; k < 4; k++) {
            before[k] = vld1q_f32(line + 4 * k);
            step[k] = vsubq_f32(vld1q_f32(below + 4 * k), before[k]);
        }
    }

    uint8x16_t blended(float fraction, float scale) const {
        uint16x8_t entries[4];
        for (size_t k = 0; k < 4; k++) {
            const float32x4_t v = vaddq_f32(before[k], vmulq_n_f32(step[k], fraction));
            const float32x4_t scaled = vaddq_f32(vmulq_n_f32(v, scale), vdupq_n_f32(0.5f));
            entries[k] = vreinterpretq_u16_u32(vcvtq_u32_f32(scaled));
        }
        // No entry is above 255: the lower halves are all of it.
        const uint16x8_t lower = vuzp1q_u16(entries[0], entries[1]);
        const uint16x8_t upper = vuzp1q_u16(entries[2], entries[3]);
        return vuzp1q_u8(vreinterpretq_u8_u16(lower), vreinterpretq_u8_u16(upper));
    }
};

}  // namespace

bool normalize_rows_neon(const Block& block, const Span* spans, const Rows& rows) {
    if (rows.step < 4) return normalize_rows_scalar(block, spans, rows);
    uint32x4_t unsound = vdupq_n_u32(0);
    for (size_t row = 0; row < rows.count; row++) {
        const float* values = block.values + static_cast<ptrdiff_t>(row) * block.step;
        float* out = rows.values + row * rows.step;
        const Span span = spans[row];
        const auto normalize_four = [&](size_t x) {
            const float32x4_t value = vld1q_f32(values + x);
            const uint32x4_t nothing = vreinterpretq_u32_f32(vsubq_f32(value, value));  // 0, or NaN: not finite
            unsound = vorrq_u32(unsound, nothing);
            const float32x4_t above = vsubq_f32(vmulq_n_f32(value, span.half), vdupq_n_f32(span.low));
            const float32x4_t v = vdivq_f32(above, vdupq_n_f32(span.span));
            const float32x4_t clamped = vminq_f32(vmaxq_f32(v, vdupq_n_f32(0.0f)), vdupq_n_f32(1.0f));
            vst1q_f32(out + x, vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(clamped), nothing)));
        };
        for (size_t x = 0; x + 4 < rows.step; x += 4) normalize_four(x);
        normalize_four(rows.step - 4);  // ends with the row
    }
    return vmaxvq_u32(unsound) != 0;
}

void enlarge_rows_neon(const Columns& columns, const Rows& rows, bool has_nan, float* out, size_t out_step) {
    if (!columns.in_blocks || has_nan) return enlarge_rows_scalar(columns, rows, has_nan, out, out_step);
    if (columns.in_pairs) return double_rows(columns, rows, out, out_step);
    const size_t last = columns.tile_w > BLOCK ? columns.tile_w - BLOCK : 0;
    for (size_t block = 0; block * BLOCK < columns.tile_w; block++) {
        const size_t x = std::min(BLOCK * block, last);
        const int32_t* offset = columns.offset + BLOCK * block;
        const float* values = rows.values + columns.first[block];
        if (columns.in_fours) {
            enlarge_block(offset, columns.fraction + x, load_four, values, rows, out + x, out_step);
        } else {
            enlarge_block(offset, columns.fraction + x, load_eight, values, rows, out + x, out_step);
        }
    }
}

void blend_rows_neon(const float* line, const float* below, size_t width, const float* fractions, size_t rows,
                     float scale, uint8_t* out) {
    for (size_t piece = 0; piece < width; piece += PIECE_PX) {
        const size_t piece_end = std::min(piece + PIECE_PX, width);
        for (size_t y = 0; y < rows; y += ROWS_AT_ONCE_NEON) {
            const size_t end = std::min(y + ROWS_AT_ONCE_NEON, rows);
            for (size_t x = piece; x < piece_end; x += PIXELS) {
                const PixelsOfTwoLines pixels(line + x, below + x);
                const size_t live = std::min(PIXELS, piece_end - x);
                for (size_t row = y; row < end; row++) {
                    const uint8x16_t blended = pixels.blended(fractions[row], scale);
                    uint8_t* const target = out + row * width + x;
                    if (live == PIXELS) {
                        vst1q_u8(target, blended);
                    } else {
                        std::memcpy(target, &blended, live);
                    }
                }
            }
        }
    }
}

}  // namespace cnnviz

#endif  // CNNVIZ_NEON
