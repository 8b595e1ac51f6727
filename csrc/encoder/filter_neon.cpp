// PNG row filters with NEON; the rule of Paeth is derived in filter.cpp.

#include "encoder/filter.h"
#include "target.h"

#if CNNVIZ_NEON
#include <arm_neon.h>

namespace cnnviz {
namespace {

constexpr size_t VECTOR = 16;

inline uint8x16_t paeth(uint8x16_t left, uint8x16_t above, uint8x16_t above_left) {
    const uint8x16_t low = vminq_u8(left, above);
    const uint8x16_t high = vmaxq_u8(left, above);
    const uint8x16_t over_low = vqsubq_u8(above_left, low);
    const uint8x16_t under_high = vqsubq_u8(high, above_left);
    const uint8x16_t take_low = vcleq_u8(vqaddq_u8(under_high, under_high), over_low);
    const uint8x16_t take_high = vcleq_u8(vqaddq_u8(over_low, over_low), under_high);
    return vbslq_u8(take_high, high, vbslq_u8(take_low, low, above_left));
}

template <Filter FILTER>
inline void filter_vector(const uint8_t* row, const uint8_t* above, size_t i, size_t left, uint8_t* residuals) {
    uint8x16_t prediction;
    if constexpr (FILTER == Filter::Sub) prediction = vld1q_u8(row + i - left);
    if constexpr (FILTER == Filter::Up) prediction = vld1q_u8(above + i);
    if constexpr (FILTER == Filter::Paeth) {
        prediction = paeth(vld1q_u8(row + i - left), vld1q_u8(above + i), vld1q_u8(above + i - left));
    }
    vst1q_u8(residuals + i, vsubq_u8(vld1q_u8(row + i), prediction));
}

// The bytes behind the first pixel, at least a vector of them.
template <Filter FILTER>
void filter_vectors(const uint8_t* row, const uint8_t* above, size_t row_bytes, size_t left, uint8_t* residuals) {
    size_t i = left;
    for (; i + 2 * VECTOR <= row_bytes; i += 2 * VECTOR) {
        filter_vector<FILTER>(row, above, i, left, residuals);
        filter_vector<FILTER>(row, above, i + VECTOR, left, residuals);
    }
    if (i + VECTOR < row_bytes) filter_vector<FILTER>(row, above, i, left, residuals);
    // The last vector ends with the row and may write some residuals a second time.
    filter_vector<FILTER>(row, above, row_bytes - VECTOR, left, residuals);
}

}  // namespace

void filter_row_neon(Filter filter, const uint8_t* row, const uint8_t* above, size_t row_bytes, size_t bytes_per_pixel,
                     uint8_t* residuals) {
    // The vector that ends with the row must not begin before its second pixel.
    const bool by_vectors = filter != Filter::None && row_bytes >= bytes_per_pixel + VECTOR;
    filter_row_scalar(filter, row, above, by_vectors ? bytes_per_pixel : row_bytes, bytes_per_pixel, residuals);
    if (!by_vectors) return;
    if (filter == Filter::Sub) {
        filter_vectors<Filter::Sub>(row, above, row_bytes, bytes_per_pixel, residuals);
    } else if (filter == Filter::Up) {
        filter_vectors<Filter::Up>(row, above, row_bytes, bytes_per_pixel, residuals);
    } else {
        filter_vectors<Filter::Paeth>(row, above, row_bytes, bytes_per_pixel, residuals);
    }
}

}  // namespace cnnviz

#endif  // CNNVIZ_NEON
