// Whole PNG files: each image encoded into memory, written under a temporary name beside its place, and moved there.

#pragma once

#include <cstddef>
#include <cstdint>

#include "dispatch.h"

namespace cnnviz {

// pixels: (count, height, width) grey values or palette indices, contiguous, every side at least 1.
// palette: (palette_size) RGB triples, 1 to 256, or null for grey.
struct ImageBatch {
    const uint8_t* pixels;
    size_t count;
    size_t height;
    size_t width;
    const uint8_t* palette;
    size_t palette_size;
};

// The most bytes that encode_png may write.
size_t png_bound(const ImageBatch& batch);

// Writes image `image` of the batch as a PNG file in memory. Returns its size, 0 when there was no memory for a row.
size_t encode_png(const Dispatch& dispatch, const ImageBatch& batch, size_t image, uint8_t* out);

struct WrittenFiles {
    size_t count;  // files complete and in their places
    int error;     // errno of the file after them, 0 when all are written
};

// Writes image i to paths[i], in this order, and stops at the first failure. A file that fails leaves nothing behind,
// and what was at its path stays.
WrittenFiles write_png_files(const Dispatch& dispatch, const ImageBatch& batch, const char* const* paths);

}  // namespace cnnviz
