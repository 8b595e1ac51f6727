// The two checksums of a PNG file: Adler-32 (RFC 1950) over the filtered rows, CRC-32 (ISO 3309) over each chunk.

#pragma once

#include <cstddef>
#include <cstdint>

namespace cnnviz {

// Adler-32: a = 1 + sum of the bytes, b = sum of all values a has had; both modulo the largest prime below 2^16.
constexpr uint32_t ADLER_PRIME = 65521;
constexpr uint32_t ADLER32_START = 1;
constexpr uint32_t CRC32_START = 0;

// The checksum of the bytes so far (`adler`, `crc`) continued by `count` bytes.
uint32_t adler32_scalar(uint32_t adler, const uint8_t* bytes, size_t count);
uint32_t adler32_avx2(uint32_t adler, const uint8_t* bytes, size_t count);
uint32_t adler32_neon(uint32_t adler, const uint8_t* bytes, size_t count);
uint32_t crc32_scalar(uint32_t crc, const uint8_t* bytes, size_t count);
uint32_t crc32_pclmul(uint32_t crc, const uint8_t* bytes, size_t count);
uint32_t crc32_arm(uint32_t crc, const uint8_t* bytes, size_t count);

// The Adler-32 of two byte strings joined, from the Adler-32 of each and the length of the second.
uint32_t adler32_combine(uint32_t first, uint32_t second, uint64_t second_bytes);

}  // namespace cnnviz
