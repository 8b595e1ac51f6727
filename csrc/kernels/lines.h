// The inner loops of drawing: a row of a map -> normalised -> enlarged along x into a line of the sheet; two lines ->
// the rows of pixels between them. Every version rounds as cnnviz_fast/kernels/reference.py does, operation by operation.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/bits.h"
#include "kernels/maps.h"
#include "target.h"

namespace cnnviz {

// Pixels of a piece of two lines that stays in the fastest cache while all rows of the piece are written.
constexpr size_t PIECE_PX = 2048;

// A range of values; its ends are equal for a flat channel.
struct Range {
    float low;
    float high;
};

// Brings the values of a channel into [0, 1] by (value * half - low) / span: if the width of a range overflows, everything
// is halved first.
//     inverse: 1 / span, rounded, where products with it may stand for the division, see lines_avx2.cpp; else 0. Nothing is
//         halved then.
struct Span {
    float half;
    float low;
    float span;
    float inverse;
};

// flat: what all values of a flat channel become.
inline Span span_of(Range range, float flat) {
    if (range.low == range.high) return {0, -flat, 1, 0};
    const float half = std::isinf(range.high - range.low) ? 0.5f : 1.0f;
    const float low = range.low * half;
    const float span = range.high * half - low;
    return {half, low, span, span >= 0x1p-40f && span <= 0x1p40f ? 1 / span : 0};
}

// Most columns that a block of enlarge_rows has, at any level.
constexpr size_t MOST_BLOCK_COLUMNS = 8;

// Floats behind the end of a row that enlarge_rows may read: it loads whole blocks, and those one column further on.
constexpr size_t ROW_PADDING = MOST_BLOCK_COLUMNS + 1;

// Floats behind the end of a line that may be read or written: blend_rows reads 64 at once.
constexpr size_t LINE_PADDING = 64;

// How the columns of a tile sample those of a map. In blocks of columns all samples of a block lie within as many
// neighbouring columns of the map, so that one load and one permutation fetch them. The last block ends with the tile,
// unless the tile is narrower than a block.
//     index: (tile_w,) column of the map at or before each sample.
//     fraction: (tile_w,) how far the sample lies towards the next column; padded with zeros to a whole block.
//     in_blocks: whether the blocks below are there; a map that is made smaller has none.
//     in_fours: whether all samples of a block even lie within four columns.
//     in_pairs: whether the map is made twice as wide: two samples lie between each column and the next, both as far
//         behind each one as behind the first, and the others on the map's edges. There are at least 9 columns then.
//     pairs_begin: the first of those samples, 0 or 1.
//     first: (blocks,) column of the map at which each block begins.
//     offset: (blocks, columns of a block) index less `first` of the block; padded with zeros.
struct Columns {
    const int32_t* index;
    const float* fraction;
    size_t tile_w;
    bool in_blocks;
    bool in_fours;
    bool in_pairs;
    size_t pairs_begin;
    const int32_t* first;
    const int32_t* offset;
};

// Some rows, each `step` floats behind the one before.
struct Rows {
    float* values;
    size_t count;
    size_t step;
};

// What stands for a value that is not finite.
constexpr float NOTHING = std::numeric_limits<float>::quiet_NaN();

// Normalises a row of each of some channels that lie one after another, as many as `rows` has. What is not finite becomes
// NaN. May write whatever into the padding. Returns whether there is a NaN.
bool normalize_rows_scalar(const Block& block, const Span* spans, const Rows& rows);
bool normalize_rows_avx2(const Block& block, const Span* spans, const Rows& rows);
bool normalize_rows_neon(const Block& block, const Span* spans, const Rows& rows);

// Interpolates rows along x: before + fraction * (after - before), or `before` alone where the fraction is 0. has_nan:
// whether a value is NaN. out_step: floats from row to row. Writes at least a block of each row, before the next row.
void enlarge_rows_scalar(const Columns& columns, const Rows& rows, bool has_nan, float* out, size_t out_step);
void enlarge_rows_avx2(const Columns& columns, const Rows& rows, bool has_nan, float* out, size_t out_step);
void enlarge_rows_neon(const Columns& columns, const Rows& rows, bool has_nan, float* out, size_t out_step);

CNNVIZ_INLINE float between(float before, float after, float fraction) { return before + fraction * (after - before); }

// Rows that have no blocks or a NaN, which a fraction of 0 keeps out; at the scalar level any rows.
CNNVIZ_INLINE void gather_rows(const Columns& columns, const Rows& rows, float* out, size_t out_step) {
    for (size_t row = 0; row < rows.count; row++) {
        const float* values = rows.values + row * rows.step;
        for (size_t x = 0; x < columns.tile_w; x++) {
            const float before = values[columns.index[x]];
            const float fraction = columns.fraction[x];
            const float v = fraction == 0 ? before : between(before, values[columns.index[x] + 1], fraction);
            out[row * out_step + x] = v;
        }
    }
}

// Writes a row of pixels for each fraction: floor((line + fraction * (below - line)) * scale + 0.5). All values finite.
void blend_rows_scalar(const float* line, const float* below, size_t width, const float* fractions, size_t rows,
                       float scale, uint8_t* out);
void blend_rows_avx2(const float* line, const float* below, size_t width, const float* fractions, size_t rows,
                     float scale, uint8_t* out);
void blend_rows_avx512(const float* line, const float* below, size_t width, const float* fractions, size_t rows,
                       float scale, uint8_t* out);
void blend_rows_neon(const float* line, const float* below, size_t width, const float* fractions, size_t rows,
                     float scale, uint8_t* out);

// Whether all values from 0 to 1 have the same entry if value * scale + 0.5 is rounded once instead of twice. For some
// scales the largest whose entry is 0 has not: two roundings lift it to 1. A test tries the values about every step of
// every scale. For the levels that have such an instruction.
bool may_fuse(float scale);

// The same where values may be NaN: such pixels show `bad`, unless the NaN has the weight 0.
void blend_rows_with_nan(const float* line, const float* below, size_t width, const float* fractions, size_t rows,
                         float scale, uint8_t bad, uint8_t* out);

// One level's versions. block_columns: columns of a block of its enlarge_rows; 0 if it has no blocks.
struct LineLoops {
    size_t block_columns;
    bool (*normalize_rows)(const Block& block, const Span* spans, const Rows& rows);
    void (*enlarge_rows)(const Columns& columns, const Rows& rows, bool has_nan, float* out, size_t out_step);
    void (*blend_rows)(const float* line, const float* below, size_t width, const float* fractions, size_t rows,
                       float scale, uint8_t* out);
};

}  // namespace cnnviz
