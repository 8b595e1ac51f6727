#include "kernels/lines.h"

#include <algorithm>

namespace cnnviz {
namespace {

CNNVIZ_INLINE uint8_t pixel_of(float v, float scale) {
    return static_cast<uint8_t>(static_cast<int32_t>(v * scale + 0.5f));
}

}  // namespace

bool normalize_rows_scalar(const Block& block, const Span* spans, const Rows& rows) {
    bool finite = true;
    for (size_t row = 0; row < rows.count; row++) {
        const float* values = block.values + static_cast<ptrdiff_t>(row) * block.step;
        const Span& span = spans[row];
        for (size_t x = 0; x < rows.step; x++) {
            const float v = (values[x] * span.half - span.low) / span.span;
            rows.values[row * rows.step + x] = is_finite(values[x]) ? std::min(std::max(v, 0.0f), 1.0f) : NOTHING;
            finite &= is_finite(values[x]);
        }
    }
    return !finite;
}

void enlarge_rows_scalar(const Columns& columns, const Rows& rows, bool, float* out, size_t out_step) {
    gather_rows(columns, rows, out, out_step);
}

void blend_rows_scalar(const float* line, const float* below, size_t width, const float* fractions, size_t rows,
                       float scale, uint8_t* out) {
    for (size_t y = 0; y < rows; y++) {
        for (size_t x = 0; x < width; x++) {
            out[y * width + x] = pixel_of(between(line[x], below[x], fractions[y]), scale);
        }
    }
}

void blend_rows_with_nan(const float* line, const float* below, size_t width, const float* fractions, size_t rows,
                         float scale, uint8_t bad, uint8_t* out) {
    for (size_t y = 0; y < rows; y++) {
        for (size_t x = 0; x < width; x++) {
            const float v = fractions[y] == 0 ? line[x] : between(line[x], below[x], fractions[y]);
            out[y * width + x] = v == v ? pixel_of(v, scale) : bad;
        }
    }
}

}  // namespace cnnviz
