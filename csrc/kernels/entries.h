// The first entries of each channel, kept in order while batches of images go by: see cnnviz_fast/patches/entries.py.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/maps.h"

namespace cnnviz {

// Entries of `channels` channels, `size` of each, at least 1, in order; those behind the last have a score of NaN.
// drawn: the order is that of digests alone; otherwise greater scores come first, and of equal ones the lesser digest.
struct EntryLists {
    float* scores;
    int64_t* digests;
    int32_t* positions;
    size_t channels;
    size_t size;
    bool drawn;
};

// Enters the maps of a batch: scores (images, channels), NaN for none, and the digest of each image. Of an image that
// has an entry already the one that comes first stays. A new entry has position -2 - image, and touched[channel] is set.
void enter(const EntryLists& lists, const float* scores, const int64_t* digests, size_t images, bool* touched);

// Enters the entries of other lists of as many channels, in the same order.
void merge(const EntryLists& lists, const EntryLists& others);

// Finds the first place of a value in some maps: place y * width + x of values[i] in maps.channel[i]; 0 where there is
// none. Returns false where there was no memory.
bool first_places(const Maps& maps, const int64_t* channel, const float* values, size_t count, int64_t* places);

}  // namespace cnnviz
