// Maps made smaller, without aliasing: bilinear interpolation with a filter as wide as the pixels of the result, the
// same as torch.nn.functional.interpolate(mode="bilinear", antialias=True, align_corners=False).

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/lines.h"
#include "kernels/maps.h"

namespace cnnviz {

struct Dispatch;

// Averages some rows of `width` values, which follow one another, by their weights. Values are clamped to the range
// first; what is not finite becomes NaN.
void average_rows_scalar(const float* values, const float* weights, size_t rows, size_t width, Range range, float* out);
void average_rows_avx2(const float* values, const float* weights, size_t rows, size_t width, Range range, float* out);
void average_rows_avx512(const float* values, const float* weights, size_t rows, size_t width, Range range, float* out);

struct ShrinkLoops {
    void (*average_rows)(const float* values, const float* weights, size_t rows, size_t width, Range range, float* out);
};

// Fills out, (count, height, width), with the maps clamped to the ranges of their channels and made smaller: height and
// width are at least 1 and at most those of the maps. An end of a range that is NaN counts as 0. Returns false where
// there was no memory.
bool shrink(const Dispatch& dispatch, const Maps& maps, const float* low, const float* high, size_t height,
            size_t width, float* out);

}  // namespace cnnviz
