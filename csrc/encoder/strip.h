// A strip of an image -> filtered -> deflated. Strips know nothing of each other, so any worker can do any of them in
// any order.

#pragma once

#include <cstddef>
#include <cstdint>

#include "dispatch.h"

namespace cnnviz {

// pixels: (rows, row_bytes), contiguous; rows and row_bytes at least 1. bytes_per_pixel is 1 to 8 and divides
// row_bytes.
struct Strip {
    const uint8_t* pixels;
    size_t rows;
    size_t row_bytes;
    size_t bytes_per_pixel;
};

struct EncodedStrip {
    size_t size;            // bytes written; 0 when there was no memory for a row
    uint32_t adler;         // Adler-32 of the filtered bytes
    size_t filtered_bytes;  // rows * (row_bytes + 1)
};

// The most bytes that either of the functions below may write, used or not.
size_t strip_bound(size_t rows, size_t row_bytes);

// Writes whole deflate blocks, none of them the last, that end on a byte: the next strip's may follow immediately.
EncodedStrip deflate_strip(const Dispatch& dispatch, const Strip& strip, uint8_t* out);

// The same as a complete IDAT chunk.
EncodedStrip encode_strip(const Dispatch& dispatch, const Strip& strip, uint8_t* out);

}  // namespace cnnviz
