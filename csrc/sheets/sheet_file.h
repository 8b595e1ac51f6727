// A sheet from maps to the PNG chunks of a file: each strip is drawn, coloured and encoded by one thread while it is in
// its cache, and strips are written in their order.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "dispatch.h"
#include "kernels/overlay.h"
#include "kernels/render.h"

namespace cnnviz {

// Text on a sheet: palette entries, (height, width), whose top left pixel is at (y, x).
struct TextBlock {
    size_t y;
    size_t x;
    size_t height;
    size_t width;
    const uint8_t* entries;
};

// overlay: what lies under the tiles, for RGB, or null for palette entries. colors: (256, 3) of the palette.
struct SheetPicture {
    Sheet sheet;
    size_t height;
    const Overlay* overlay;
    const uint8_t* colors;
    std::vector<TextBlock> blocks;
};

// Seconds of all threads together.
struct StageSeconds {
    double render;
    double encode;
    double write;
};

// error: 0, or an errno. stopped: by the caller's wish. adler: of all filtered bytes.
struct WrittenSheet {
    int error;
    bool stopped;
    uint32_t adler;
    StageSeconds seconds;
};

// Writes an IDAT chunk for each strip of `strip_rows` rows to a file. The calling thread first does `meanwhile`, which
// returns whether to go on, while the others begin; then it asks `wants_to_stop` now and then.
WrittenSheet write_sheet(const Dispatch& dispatch, const SheetPicture& picture, size_t strip_rows, size_t threads,
                         int file, const std::function<bool()>& meanwhile, const std::function<bool()>& wants_to_stop);

}  // namespace cnnviz
