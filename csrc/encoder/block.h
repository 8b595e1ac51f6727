// One dynamic-Huffman block of deflate (RFC 1951, section 3.2.7): symbol frequencies -> codes -> header, and runs as
// matches.

#pragma once

#include <cstddef>
#include <cstdint>

#include "encoder/bit_writer.h"
#include "encoder/huffman.h"
#include "encoder/literals.h"

namespace cnnviz {

// 256 literals, the end of the block, 29 match lengths. Distances other than 1 are not used.
constexpr size_t BLOCK_SYMBOLS = 286;
constexpr size_t END_OF_BLOCK = 256;
constexpr size_t MIN_MATCH = 3;
constexpr size_t MAX_MATCH = 258;
constexpr size_t STORED_BLOCK_BYTES = 65535;

// The codes of a block. A match is one put: length code, extra bits, and the single bit of the only distance code.
struct BlockCodes {
    LiteralCodes literals;
    uint8_t lengths[BLOCK_SYMBOLS];
    uint16_t codes[BLOCK_SYMBOLS];
    uint32_t match_bits[MAX_MATCH + 1];
    uint8_t match_widths[MAX_MATCH + 1];
};

// How often each symbol occurs. The same calls as BlockWriter's, so that one walk over a row serves both.
class SymbolCounts {
  public:
    void literals(const uint8_t* bytes, size_t count);
    void matches(size_t length, size_t times);
    // Adds up the parts. `symbols` is (BLOCK_SYMBOLS); END_OF_BLOCK counts once.
    void total(uint32_t* symbols) const;
    // Bits besides the symbols: those that complete a length, and one for each distance.
    uint64_t extra_bits() const { return extra_bits_; }
    // The bytes all symbols stand for, and the bits they take in these codes.
    uint64_t bytes() const { return bytes_; }
    uint64_t bits(const BlockCodes& codes) const;

  private:
    // A value that repeats would wait for its own counter; neighbours count into different parts.
    static constexpr size_t PARTS = 8;
    uint32_t literal_parts_[PARTS][256] = {};
    uint32_t lengths_[BLOCK_SYMBOLS - END_OF_BLOCK] = {};
    uint64_t extra_bits_ = 0;
    uint64_t bytes_ = 0;
};

void make_block_codes(const uint32_t* symbols, BlockCodes& codes);

// Bits: 3 + 5 + 5 + 4 of fixed fields, 19 lengths of 3, then at most 287 code lengths of 7 bits with 7 extra ones.
constexpr size_t MAX_BLOCK_HEADER_BYTES = (3 + 14 + 19 * 3 + (BLOCK_SYMBOLS + 1) * 14 + 7) / 8;

// Writes the header of a block that is not the last one.
void put_block_header(BitWriter& writer, const BlockCodes& codes);

// log2(x) in 1/256, between powers of two by the straight line: at most 0.09 too low. Integers, so that every machine
// makes the same choice. x >= 1.
uint32_t log2_256(uint32_t x);

// About how many bits the symbols take, each -log2 of its share.
uint64_t estimate_bits(const uint32_t* symbols, uint64_t extra_bits);

}  // namespace cnnviz
