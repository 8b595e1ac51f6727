#include "kernels/entries.h"

#include <algorithm>
#include <cmath>

#include "buffer.h"

namespace cnnviz {
namespace {

// The entries of one channel.
struct Row {
    float* scores;
    int64_t* digests;
    int32_t* positions;
    bool drawn;

    Row(const EntryLists& lists, size_t c)
        : scores(lists.scores + c * lists.size),
          digests(lists.digests + c * lists.size),
          positions(lists.positions + c * lists.size),
          drawn(lists.drawn) {}

    bool is_behind(size_t slot, float score, int64_t digest) const {
        if (std::isnan(scores[slot])) return true;
        if (drawn) return digest < digests[slot];
        return score > scores[slot] || (score == scores[slot] && digest < digests[slot]);
    }

    void move(size_t from, size_t to) const {
        scores[to] = scores[from];
        digests[to] = digests[from];
        positions[to] = positions[from];
    }
};

// Enters an entry that comes before the last one; returns whether it has not been there.
bool insert(const Row& row, size_t size, float score, int64_t digest, int32_t position) {
    size_t slot = static_cast<size_t>(std::find(row.digests, row.digests + size, digest) - row.digests);
    if (slot == size) {
        slot = size - 1;
    } else if (!row.is_behind(slot, score, digest)) {
        return false;
    }
    for (; slot > 0 && row.is_behind(slot - 1, score, digest); slot--) row.move(slot - 1, slot);
    row.scores[slot] = score;
    row.digests[slot] = digest;
    row.positions[slot] = position;
    return true;
}

// Values that are compared before it is asked whether one of them was equal.
constexpr size_t AT_ONCE = 64;

size_t first_place(const float* values, size_t count, float value) {
    size_t begin = 0;
    for (; begin + AT_ONCE <= count; begin += AT_ONCE) {
        int found = 0;
        for (size_t i = 0; i < AT_ONCE; i++) found |= values[begin + i] == value;
        if (found) break;
    }
    const size_t place = static_cast<size_t>(std::find(values + begin, values + count, value) - values);
    return place < count ? place : 0;
}

// Finds places in maps whose channels lie side by side, in the order of memory.
void first_places_across(const Maps& maps, const int64_t* channel, const float* values, size_t count, int64_t* places) {
    std::fill_n(places, count, -1);
    for (size_t y = 0; y < maps.height; y++) {
        for (size_t x = 0; x < maps.width; x++) {
            const float* cell = static_cast<const float*>(maps.data) + static_cast<ptrdiff_t>(y) * maps.step_y +
                                static_cast<ptrdiff_t>(x) * maps.step_x;
            for (size_t i = 0; i < count; i++) {
                if (cell[channel[i]] == values[i] && places[i] < 0) {
                    places[i] = static_cast<int64_t>(y * maps.width + x);
                }
            }
        }
    }
    std::replace(places, places + count, int64_t{-1}, int64_t{0});
}

}  // namespace

void enter(const EntryLists& lists, const float* scores, const int64_t* digests, size_t images, bool* touched) {
    for (size_t n = 0; n < images; n++, scores += lists.channels) {
        for (size_t c = 0; c < lists.channels; c++) {
            const Row row(lists, c);
            if (std::isnan(scores[c]) || !row.is_behind(lists.size - 1, scores[c], digests[n])) continue;
            touched[c] |= insert(row, lists.size, scores[c], digests[n], -2 - static_cast<int32_t>(n));
        }
    }
}

void merge(const EntryLists& lists, const EntryLists& others) {
    for (size_t c = 0; c < lists.channels; c++) {
        const Row row(lists, c);
        const Row other(others, c);
        for (size_t slot = 0; slot < others.size && !std::isnan(other.scores[slot]); slot++) {
            if (!row.is_behind(lists.size - 1, other.scores[slot], other.digests[slot])) break;
            insert(row, lists.size, other.scores[slot], other.digests[slot], other.positions[slot]);
        }
    }
}

bool first_places(const Maps& maps, const int64_t* channel, const float* values, size_t count, int64_t* places) {
    if (maps.dtype == Dtype::Float32 && maps.step_c == 1) {
        first_places_across(maps, channel, values, count, places);
        return true;
    }
    const size_t size = maps.height * maps.width;
    Buffer<float> scratch;
    if (needs_scratch(maps, true)) {
        scratch = allocate<float>(size);
        if (!scratch) return false;
    }
    for (size_t i = 0; i < count; i++) {
        const size_t c = static_cast<size_t>(channel[i]);
        const Block block = read_block(maps, c, c + 1, 0, maps.height, scratch.get());
        places[i] = static_cast<int64_t>(first_place(block.values, size, values[i]));
    }
    return true;
}

}  // namespace cnnviz
