#include "kernels/overlay.h"

#include <algorithm>

#include "buffer.h"

namespace cnnviz {
namespace {

constexpr size_t ENTRIES = 256;

// What a pixel needs of its entry in 64 bits, 16 each: weight * color + 128 of red, green and blue, and 256 - weight.
// One load and one multiplication then make a pixel. No lane overflows: (weight * color + (256 - weight) * photo + 128)
// is below 2^16.
uint64_t pack(const uint8_t* color, uint32_t weight) {
    uint64_t packed = static_cast<uint64_t>(256 - weight) << 48;
    for (unsigned k = 0; k < 3; k++) packed |= static_cast<uint64_t>(weight * color[k] + 128) << (16 * k);
    return packed;
}

// Pixels from their entries and what lies under them, packed in lanes of 16 bits.
void lay_over(const uint8_t* entries, size_t count, const uint64_t* packed, const uint64_t* under, uint8_t* out) {
    for (size_t x = 0; x < count; x++) {
        const uint64_t entry = packed[entries[x]];
        const uint64_t lanes = (entry & 0xFFFFFFFFFFFF) + under[x] * (entry >> 48);
        out[3 * x] = static_cast<uint8_t>(lanes >> 8);
        out[3 * x + 1] = static_cast<uint8_t>(lanes >> 24);
        out[3 * x + 2] = static_cast<uint8_t>(lanes >> 40);
    }
}

void paint(const uint8_t* entries, size_t count, const uint8_t* colors, uint8_t* out) {
    for (size_t x = 0; x < count; x++) std::copy_n(colors + 3 * entries[x], 3, out + 3 * x);
}

}  // namespace

bool blend_strip(const Overlay& overlay, const uint8_t* index, size_t start, size_t stop, uint8_t* out) {
    const Grid& grid = overlay.grid;
    const Buffer<uint64_t> under = allocate<uint64_t>(grid.tile_w);
    if (!under) return false;
    uint64_t packed[ENTRIES];
    for (size_t entry = 0; entry < ENTRIES; entry++) {
        packed[entry] = pack(overlay.colors + 3 * entry, overlay.weights[entry]);
    }
    for (size_t y = start; y < stop; y++, index += overlay.width, out += 3 * overlay.width) {
        const size_t t = y < grid.top ? grid.tile_h : (y - grid.top) % grid.step_y;
        const size_t first = y < grid.top ? overlay.count : (y - grid.top) / grid.step_y * grid.columns;
        size_t end = 0;
        if (t < grid.tile_h && first < overlay.count) {
            const uint8_t* photo = overlay.photo + t * grid.tile_w * 3;
            for (size_t x = 0; x < grid.tile_w; x++) {
                under[x] = photo[3 * x] | static_cast<uint64_t>(photo[3 * x + 1]) << 16 |
                           static_cast<uint64_t>(photo[3 * x + 2]) << 32;
            }
            for (size_t c = first; c < std::min(first + grid.columns, overlay.count); c++) {
                const size_t begin = grid.left + (c - first) * grid.step_x;
                paint(index + end, begin - end, overlay.colors, out + 3 * end);
                lay_over(index + begin, grid.tile_w, packed, under.get(), out + 3 * begin);
                end = begin + grid.tile_w;
            }
        }
        paint(index + end, overlay.width - end, overlay.colors, out + 3 * end);
    }
    return true;
}

}  // namespace cnnviz
