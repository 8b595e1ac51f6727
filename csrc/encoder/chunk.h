// PNG chunks: length, type, contents, CRC-32 of type and contents.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dispatch.h"
#include "encoder/checksums.h"

namespace cnnviz {

constexpr size_t CHUNK_HEAD_BYTES = 8;
constexpr size_t CHUNK_OVERHEAD_BYTES = CHUNK_HEAD_BYTES + 4;

inline uint8_t* put_big_endian_32(uint8_t* out, uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) *out++ = static_cast<uint8_t>(value >> shift);
    return out;
}

// Completes a chunk whose `size` bytes of contents are already in place, CHUNK_HEAD_BYTES after `chunk`. Returns its
// end.
inline uint8_t* finish_chunk(const Dispatch& dispatch, uint8_t* chunk, const char* type, size_t size) {
    put_big_endian_32(chunk, static_cast<uint32_t>(size));
    std::memcpy(chunk + 4, type, 4);
    return put_big_endian_32(chunk + CHUNK_HEAD_BYTES + size, dispatch.crc32(CRC32_START, chunk + 4, size + 4));
}

}  // namespace cnnviz
