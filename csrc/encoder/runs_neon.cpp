// Runs of one value with NEON; the rule is in runs.h.

#include "encoder/runs.h"
#include "target.h"

#if CNNVIZ_NEON
#include <arm_neon.h>

#include <cstring>

namespace cnnviz {

static_assert(RUN_BLOCK == 32, "two vectors are one block");

size_t run_length_neon(const uint8_t* bytes, size_t count) {
    const uint8x16_t value = vdupq_n_u8(bytes[0]);
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const uint8x16_t equal = vceqq_u8(vld1q_u8(bytes + i), value);
        // Four bits of each byte, in order: NEON has no instruction that gathers the signs.
        const uint8x8_t nibbles = vshrn_n_u16(vreinterpretq_u16_u8(equal), 4);
        const uint64_t differ = ~vget_lane_u64(vreinterpret_u64_u8(nibbles), 0);
        if (differ != 0) return i + static_cast<size_t>(__builtin_ctzll(differ)) / 4;
    }
    while (i < count && bytes[i] == bytes[0]) i++;
    return i;
}

size_t literal_span_neon(const uint8_t* bytes, size_t count) {
    size_t i = 0;
    for (; i + RUN_BLOCK <= count; i += RUN_BLOCK) {
        // Nearly every block that starts no run shows it in its first eight bytes: rotated by one they stay the same
        // only where all are equal.
        uint64_t eight;
        std::memcpy(&eight, bytes + i, sizeof eight);
        if (eight != (eight >> 8 | eight << 56)) continue;
        const uint8x16_t first = vdupq_n_u8(bytes[i]);
        const uint8x16_t lower = veorq_u8(vld1q_u8(bytes + i), first);
        const uint8x16_t upper = veorq_u8(vld1q_u8(bytes + i + 16), first);
        if (vmaxvq_u8(vorrq_u8(lower, upper)) == 0) return i;
    }
    return count;
}

}  // namespace cnnviz

#endif  // CNNVIZ_NEON
