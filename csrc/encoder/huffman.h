// Prefix codes as deflate uses them (RFC 1951, section 3.2.2): lengths from frequencies, codes from lengths.

#pragma once

#include <cstddef>
#include <cstdint>

namespace cnnviz {

constexpr size_t MAX_SYMBOLS = 286;
constexpr unsigned MAX_CODE_LENGTH = 15;

// Writes the code length of each symbol, 0 for those of frequency 0, none above `limit`. The code is complete; where
// only one symbol occurs, another joins it so that it can be. 2 <= count <= MAX_SYMBOLS; 2^limit >= count; at least one
// frequency is not 0 and they add up to less than 2^32.
void huffman_lengths(const uint32_t* frequencies, size_t count, unsigned limit, uint8_t* lengths);

// Writes the canonical code of each symbol, mirrored: its first bit is the lowest.
void huffman_codes(const uint8_t* lengths, size_t count, uint16_t* codes);

}  // namespace cnnviz
