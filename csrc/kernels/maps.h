// Maps as they lie in memory, of any dtype and strides, read as float32.

#pragma once

#include <cstddef>
#include <cstdint>

namespace cnnviz {

enum class Dtype { Float32, Float16, BFloat16, UInt8 };

// count x height x width values, all at least 1. A step is the distance of neighbours, in values.
struct Maps {
    const void* data;
    Dtype dtype;
    size_t count;
    size_t height;
    size_t width;
    ptrdiff_t step_c;
    ptrdiff_t step_y;
    ptrdiff_t step_x;
};

// Some rows of some channels, as float32: the rows of a channel one after another, channels `step` apart.
struct Block {
    const float* values;
    ptrdiff_t step;
};

// Rows top..bottom-1 of channels first..last-1. They are read where they lie if they are float32 and contiguous;
// otherwise `scratch` is filled, which holds (last - first) * (bottom - top) * width values.
Block read_block(const Maps& maps, size_t first, size_t last, size_t top, size_t bottom, float* scratch);

// Whether read_block fills its scratch, for blocks of whole channels or of single rows.
bool needs_scratch(const Maps& maps, bool whole_channels);

}  // namespace cnnviz
