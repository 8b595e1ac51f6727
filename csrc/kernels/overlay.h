// A strip of palette entries in colour, over a photo under every tile.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/render.h"

namespace cnnviz {

// colors: (256, 3) of the palette. weights: (256,) of each entry's colour over the photo, 0 to 256 in 1/256.
// photo: (tile_h, tile_w, 3). count: tiles of the grid. width: of the sheet.
struct Overlay {
    const uint8_t* colors;
    const uint16_t* weights;
    const uint8_t* photo;
    Grid grid;
    size_t count;
    size_t width;
};

// Colours rows start..stop-1 of the sheet, whose entries are `index`, (stop - start, width), into `out`, with 3 bytes a
// pixel: (weight * color + (256 - weight) * photo + 128) / 256 on tiles, the entry's colour elsewhere. Returns false
// where there was no memory.
bool blend_strip(const Overlay& overlay, const uint8_t* index, size_t start, size_t stop, uint8_t* out);

}  // namespace cnnviz
