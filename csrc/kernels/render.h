// A strip of a sheet of tiles, from maps.

#pragma once

#include <cstddef>
#include <cstdint>

#include "dispatch.h"
#include "kernels/lines.h"
#include "kernels/maps.h"

namespace cnnviz {

// Where the rows or columns of a tile sample those of a map; see geometry.Positions.
struct Positions {
    const int32_t* index;
    const float* fraction;
    size_t count;
};

// Where the tiles lie; see geometry.Grid. `columns` tiles are in a row.
struct Grid {
    size_t columns;
    size_t tile_h;
    size_t tile_w;
    size_t step_y;
    size_t step_x;
    size_t top;
    size_t left;
};

// What the palette entries stand for; see kernels.Paint.
struct Paint {
    size_t levels;
    float flat;
    uint8_t background;
    uint8_t bad;
};

// Everything about a sheet but its pixels. low and high: (count,) the range of each channel. width: of the sheet.
struct Sheet {
    Maps maps;
    const float* low;
    const float* high;
    Positions rows;
    Positions cols;
    Grid grid;
    Paint paint;
    size_t width;
};

// Draws rows start..stop-1 of the sheet into `out`, (stop - start, width), by up to so many threads. Returns false where
// there was no memory.
bool render_strip(const Dispatch& dispatch, const Sheet& sheet, size_t start, size_t stop, size_t threads,
                  uint8_t* out);

}  // namespace cnnviz
