// Maps as they lie in memory, of any dtype and strides, read as float32.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "buffer.h"

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

// Calls see(channel, values) with the values of channels begin..end-1, the rows of each one after another. Returns false
// where there was no memory.
template <class See>
bool for_each_channel(const Maps& maps, size_t begin, size_t end, See see) {
    // Values that have to be copied are copied a few channels at a time: those of maps with channels last share cache
    // lines.
    constexpr size_t CHANNELS_AT_ONCE = 16;
    const size_t size = maps.height * maps.width;
    Buffer<float> scratch;
    if (needs_scratch(maps, true)) {
        scratch = allocate<float>(std::min(CHANNELS_AT_ONCE, end - begin) * size);
        if (!scratch) return false;
    }
    for (size_t first = begin; first < end; first += CHANNELS_AT_ONCE) {
        const size_t last = std::min(first + CHANNELS_AT_ONCE, end);
        const Block block = read_block(maps, first, last, 0, maps.height, scratch.get());
        for (size_t c = first; c < last; c++) see(c, block.values + static_cast<ptrdiff_t>(c - first) * block.step);
    }
    return true;
}

}  // namespace cnnviz
