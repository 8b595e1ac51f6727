// The tiles of a manifest as JSON text: numbers that are text already, set between keys, boxes and flags.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/render.h"

namespace cnnviz {

// A JSON array without spaces, of numbers, nulls and plain words; at least its two brackets.
struct Text {
    const char* bytes;
    size_t size;
};

// The records of `count` tiles in columns. In a text:
//     channels: the number of each, or null.
//     numbers: of each, vmin and vmax, which are left out where these are its min and max (`own_ranges`); then min, max,
//         mean, std and zeros.
//     reductions, scores: of each; empty where tiles have none.
struct TileColumns {
    size_t count;
    Grid grid;
    Text channels;
    bool own_ranges;
    Text numbers;
    const int64_t* nan;
    const int64_t* infinite;
    const bool* flat;
    const bool* dead;
    Text reductions;
    Text scores;
};

// Most bytes of the records.
size_t tiles_bound(const TileColumns& columns);

// Writes the records as a JSON array without spaces, the keys in the order of sheets/manifest.py. Returns its size; 0
// where a text holds too little.
size_t write_tiles(const TileColumns& columns, char* out);

}  // namespace cnnviz
