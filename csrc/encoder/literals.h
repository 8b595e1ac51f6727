// The hot loop of the encoder: residuals to Huffman codes.

#pragma once

#include <cstddef>
#include <cstdint>

#include "encoder/bit_writer.h"

namespace cnnviz {

// Bits. Four codes go into one put: 4 x 14 = 56 = BitWriter::MAX_PUT. RFC 1951 would allow 15.
constexpr unsigned MAX_LITERAL_LENGTH = 14;
static_assert(4 * MAX_LITERAL_LENGTH <= BitWriter::MAX_PUT);

// The code of each byte value, mirrored, as planes of bytes for the vector versions. A length of 0 puts nothing.
struct LiteralCodes {
    alignas(64) uint8_t low[256];
    alignas(64) uint8_t high[256];
    alignas(64) uint8_t length[256];
    // The same again, code | length << 16, for one symbol at a time.
    alignas(64) uint32_t joined[256];
    // Whether residuals beyond -16 to 15 are frequent.
    bool wide;
};

void put_literals_scalar(BitWriter& writer, const LiteralCodes& codes, const uint8_t* bytes, size_t count);
void put_literals_avx2(BitWriter& writer, const LiteralCodes& codes, const uint8_t* bytes, size_t count);
void put_literals_avx512(BitWriter& writer, const LiteralCodes& codes, const uint8_t* bytes, size_t count);
void put_literals_neon(BitWriter& writer, const LiteralCodes& codes, const uint8_t* bytes, size_t count);

}  // namespace cnnviz
