// PNG row filters: residual = pixel - prediction, modulo 256, from the pixels to the left, above, and above left.

#pragma once

#include <cstddef>
#include <cstdint>

namespace cnnviz {

// The numbers are those of the PNG specification, section 9. Average (3) never wins on enlarged maps and is left out.
enum class Filter : uint8_t { None = 0, Sub = 1, Up = 2, Paeth = 4 };

// row: (row_bytes) bytes. above: the same for the row above; only Up and Paeth read it.
// residuals: (row_bytes) bytes, written; must not overlap the rows. bytes_per_pixel: distance to the pixel on the left.
void filter_row_scalar(Filter filter, const uint8_t* row, const uint8_t* above, size_t row_bytes,
                       size_t bytes_per_pixel, uint8_t* residuals);
void filter_row_avx2(Filter filter, const uint8_t* row, const uint8_t* above, size_t row_bytes, size_t bytes_per_pixel,
                     uint8_t* residuals);
void filter_row_avx512(Filter filter, const uint8_t* row, const uint8_t* above, size_t row_bytes,
                       size_t bytes_per_pixel, uint8_t* residuals);
void filter_row_neon(Filter filter, const uint8_t* row, const uint8_t* above, size_t row_bytes, size_t bytes_per_pixel,
                     uint8_t* residuals);

}  // namespace cnnviz
