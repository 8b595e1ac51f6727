// Checksums on ARM: Adler-32 with NEON, CRC-32 with the instructions that nearly all processors of this kind have.

#include "encoder/checksums.h"
#include "target.h"

#if CNNVIZ_NEON
#include <arm_neon.h>

#include <algorithm>
#include <cstring>

namespace cnnviz {

uint32_t adler32_neon(uint32_t adler, const uint8_t* bytes, size_t count) {
    // As adler32_avx2: over a vector of 32 bytes b += 32 a + sum (32 - j) byte[j] and a += sum byte[j]. A lane of `sums`
    // adds up 8 bytes of each vector, and `sums_before` what that has been before each of the vectors.
    constexpr size_t VECTORS = 2048;
    static_assert(uint64_t{255} * 8 * VECTORS * (VECTORS - 1) / 2 < uint64_t{1} << 32, "sums_before");
    static_assert(uint64_t{255} * (32 + 31 + 24 + 23 + 16 + 15 + 8 + 7) * VECTORS < uint64_t{1} << 32, "weighted");
    constexpr uint8_t WEIGHTS[32] = {32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17,
                                     16, 15, 14, 13, 12, 11, 10, 9,  8,  7,  6,  5,  4,  3,  2,  1};
    const uint8x16_t upper_weights = vld1q_u8(WEIGHTS);
    const uint8x16_t lower_weights = vld1q_u8(WEIGHTS + 16);
    uint64_t a = adler & 0xFFFF;
    uint64_t b = adler >> 16;
    while (count >= 32) {
        const size_t part = std::min(count & ~size_t{31}, 32 * VECTORS);
        uint32x4_t sums = vdupq_n_u32(0);
        uint32x4_t sums_before = vdupq_n_u32(0);
        uint32x4_t weighted = vdupq_n_u32(0);
        for (size_t i = 0; i < part; i += 32) {
            const uint8x16_t first = vld1q_u8(bytes + i);
            const uint8x16_t second = vld1q_u8(bytes + i + 16);
            sums_before = vaddq_u32(sums_before, sums);
            sums = vpadalq_u16(sums, vpadalq_u8(vpaddlq_u8(first), second));
            uint16x8_t products = vmull_u8(vget_low_u8(first), vget_low_u8(upper_weights));
            products = vmlal_high_u8(products, first, upper_weights);
            products = vmlal_u8(products, vget_low_u8(second), vget_low_u8(lower_weights));
            products = vmlal_high_u8(products, second, lower_weights);
            weighted = vpadalq_u16(weighted, products);
        }
        b += part * a + 32 * vaddlvq_u32(sums_before) + vaddlvq_u32(weighted);
        a += vaddlvq_u32(sums);
        a %= ADLER_PRIME;
        b %= ADLER_PRIME;
        bytes += part;
        count -= part;
    }
    return adler32_scalar(static_cast<uint32_t>(b) << 16 | static_cast<uint32_t>(a), bytes, count);
}

uint32_t crc32_arm(uint32_t crc, const uint8_t* bytes, size_t count) {
    uint32_t remainder = ~crc;
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        uint64_t eight;
        std::memcpy(&eight, bytes + i, sizeof eight);
        // Assembly: Clang before 16 has the intrinsic only in files compiled for processors that all have it.
        __asm__(".arch_extension crc\n\tcrc32x %w0, %w0, %1" : "+r"(remainder) : "r"(eight));
    }
    return crc32_scalar(~remainder, bytes + i, count - i);
}

}  // namespace cnnviz

#endif  // CNNVIZ_NEON
