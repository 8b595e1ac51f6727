// Bits to bytes, lowest bit first, as deflate wants them.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cnnviz {

// Between calls fewer than 8 bits wait in `bits`. A put may store 8 bytes at `next`, however few of them are used yet.
struct BitWriter {
    uint8_t* next;
    uint64_t bits = 0;
    unsigned count = 0;

    // At most 56 bits at once: with the 7 that may be waiting, 63 fit into the buffer and no shift reaches 64.
    static constexpr unsigned MAX_PUT = 56;
    static constexpr unsigned MAX_PUT_BYTES = 63;

    void put(uint64_t value, unsigned width) {
        bits |= value << count;
        count += width;
        store_little_endian();
        next += count >> 3;
        bits >>= count & 56;
        count &= 7;
    }

    // The same for 8 to 63 bits. At least one byte is filled, so that only bits of this value wait afterwards.
    void put_bytes(uint64_t value, unsigned width) {
        bits |= value << count;
        store_little_endian();
        const unsigned filled = count + width;
        next += filled >> 3;
        bits = value >> ((filled & 120) - count);
        count = filled & 7;
    }

    // Puts what was put between two earlier states of this writer again.
    void repeat(const BitWriter& start, const BitWriter& end) {
        constexpr uint64_t ALL = (uint64_t{1} << MAX_PUT) - 1;
        const uint8_t* from = start.next;
        size_t left = 8 * static_cast<size_t>(end.next - start.next) + end.count - start.count;
        for (; left >= MAX_PUT; left -= MAX_PUT, from += MAX_PUT / 8) {
            put(load_little_endian(from) >> start.count & ALL, MAX_PUT);
        }
        put(load_little_endian(from) >> start.count & ((uint64_t{1} << left) - 1), static_cast<unsigned>(left));
    }

    // Fills the last byte with zero bits.
    void align() {
        if (count > 0) put(0, 8 - count);
    }

  private:
    static uint64_t load_little_endian(const uint8_t* bytes) {
        uint64_t value = 0;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        for (unsigned i = 0; i < 8; i++) value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
#else
        std::memcpy(&value, bytes, sizeof value);
#endif
        return value;
    }

    void store_little_endian() {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        for (unsigned i = 0; i < 8; i++) next[i] = static_cast<uint8_t>(bits >> (8 * i));
#else
        std::memcpy(next, &bits, sizeof bits);
#endif
    }
};

}  // namespace cnnviz
