#include "encoder/huffman.h"

#include <algorithm>

namespace cnnviz {
namespace {

// How many symbols have each length, in a Huffman tree over `frequencies` (ascending, at least two). Lengths above the
// last entry, `limit`, are counted there.
void count_lengths(const uint32_t* frequencies, size_t count, unsigned limit, uint32_t* counts) {
    // Nodes 0..count-1 are the leaves; the inner nodes follow in the order they are made, which is ascending too. So
    // the two smallest are always at the front of one of two queues.
    uint32_t weights[2 * MAX_SYMBOLS];
    uint16_t parents[2 * MAX_SYMBOLS];
    std::copy(frequencies, frequencies + count, weights);
    const size_t root = 2 * count - 2;
    size_t leaf = 0;
    size_t inner = count;
    for (size_t node = count; node <= root; node++) {
        uint32_t weight = 0;
        for (int child = 0; child < 2; child++) {
            const bool take_leaf = leaf < count && (inner == node || weights[leaf] <= weights[inner]);
            const size_t taken = take_leaf ? leaf++ : inner++;
            weight += weights[taken];
            parents[taken] = static_cast<uint16_t>(node);
        }
        weights[node] = weight;
    }
    uint16_t depths[2 * MAX_SYMBOLS];
    depths[root] = 0;
    for (size_t node = root; node-- > 0;) {
        depths[node] = static_cast<uint16_t>(depths[parents[node]] + 1);
        if (node < count) counts[std::min<unsigned>(depths[node], limit)]++;
    }
}

// Cutting lengths to `limit` gives out more code space than there is. Each step takes back the smallest unit: a symbol
// above the limit gets one bit more, and a symbol at the limit becomes its sibling.
void restore_prefix_code(uint32_t* counts, unsigned limit) {
    uint32_t used = 0;
    for (unsigned length = 1; length <= limit; length++) used += counts[length] << (limit - length);
    for (; used > 1u << limit; used--) {
        unsigned length = limit - 1;
        while (counts[length] == 0) length--;
        counts[length]--;
        counts[length + 1] += 2;
        counts[limit]--;
    }
}

// 16 bits in the opposite order: halves of halves change places.
uint32_t mirrored(uint32_t bits) {
    bits = (bits & 0x5555) << 1 | (bits >> 1 & 0x5555);
    bits = (bits & 0x3333) << 2 | (bits >> 2 & 0x3333);
    bits = (bits & 0x0F0F) << 4 | (bits >> 4 & 0x0F0F);
    return (bits & 0x00FF) << 8 | bits >> 8;
}

// A code for fewer than two symbols: one bit each for the one that occurs and another.
void make_pair_code(const uint32_t* frequencies, uint8_t* lengths) {
    size_t symbol = 0;
    while (frequencies[symbol] == 0) symbol++;
    lengths[symbol] = 1;
    lengths[symbol == 0 ? 1 : 0] = 1;
}

}  // namespace

void huffman_lengths(const uint32_t* frequencies, size_t count, unsigned limit, uint8_t* lengths) {
    uint16_t order[MAX_SYMBOLS];
    size_t used = 0;
    std::fill(lengths, lengths + count, uint8_t{0});
    const auto append = [&](auto&& wanted) {
        for (size_t symbol = 0; symbol < count; symbol++) {
            if (wanted(frequencies[symbol])) order[used++] = static_cast<uint16_t>(symbol);
        }
    };
    // The symbols of frequency 1, often most of them, are in order as they come.
    append([](uint32_t frequency) { return frequency == 1; });
    const size_t ones = used;
    append([](uint32_t frequency) { return frequency > 1; });
    std::sort(order + ones, order + used, [frequencies](uint16_t x, uint16_t y) {
        return frequencies[x] != frequencies[y] ? frequencies[x] < frequencies[y] : x < y;
    });
    if (used < 2) {
        make_pair_code(frequencies, lengths);
        return;
    }
    uint32_t ascending[MAX_SYMBOLS];
    for (size_t i = 0; i < used; i++) ascending[i] = frequencies[order[i]];
    uint32_t counts[MAX_CODE_LENGTH + 1] = {};
    count_lengths(ascending, used, limit, counts);
    restore_prefix_code(counts, limit);
    size_t next = 0;
    for (unsigned length = limit; length > 0; length--) {
        for (uint32_t i = 0; i < counts[length]; i++) lengths[order[next++]] = static_cast<uint8_t>(length);
    }
}

void huffman_codes(const uint8_t* lengths, size_t count, uint16_t* codes) {
    uint32_t counts[MAX_CODE_LENGTH + 1] = {};
    for (size_t symbol = 0; symbol < count; symbol++) counts[lengths[symbol]]++;
    counts[0] = 0;
    uint32_t next[MAX_CODE_LENGTH + 2] = {};
    for (unsigned length = 1; length <= MAX_CODE_LENGTH; length++)
        next[length + 1] = (next[length] + counts[length]) << 1;
    for (size_t symbol = 0; symbol < count; symbol++) {
        const uint32_t code = lengths[symbol] > 0 ? next[lengths[symbol]]++ : 0;
        codes[symbol] = static_cast<uint16_t>(mirrored(code) >> (16 - lengths[symbol]));
    }
}

}  // namespace cnnviz
