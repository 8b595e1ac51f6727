// Residuals to Huffman codes with NEON. As in literals.cpp neighbours are joined,
//     joined(x, y) = x | y << length(x),   length(joined) = length(x) + length(y),
// from codes in lanes of 16 bits to pairs in lanes of 32, fours in lanes of 64 and eights; here by multiplications that
// widen, x + y * 2^length(x).

#include "encoder/literals.h"
#include "target.h"

#if CNNVIZ_NEON
#include <arm_neon.h>

namespace cnnviz {
namespace {

// 16 codes. A shift takes its distance from the lowest byte of a lane: of lengths[0] and lengths[1] as 16 bits that is
// lengths[0], the length of the first of two neighbours, and likewise for wider lanes.
CNNVIZ_INLINE void put_16(BitWriter& writer, uint8x16_t low, uint8x16_t high, uint8x16_t lengths) {
    // low and high as lanes of 16 bits hold two codes each: the even ones are {low, high << 8} of their lower bytes.
    const uint16x8_t low_pairs = vreinterpretq_u16_u8(low);
    const uint16x8_t high_pairs = vreinterpretq_u16_u8(high);
    const uint16x8_t even = vsliq_n_u16(low_pairs, high_pairs, 8);
    const uint16x8_t odd = vsriq_n_u16(high_pairs, low_pairs, 8);
    const uint16x8_t even_power = vshlq_u16(vdupq_n_u16(1), vreinterpretq_s16_u8(lengths));
    const uint32x4_t pairs_0 = vmlal_u16(vmovl_u16(vget_low_u16(even)), vget_low_u16(odd), vget_low_u16(even_power));
    const uint32x4_t pairs_1 = vmlal_high_u16(vmovl_high_u16(even), odd, even_power);
    const uint16x8_t pair_widths = vpaddlq_u8(lengths);

    const uint32x4_t even_pairs = vuzp1q_u32(pairs_0, pairs_1);
    const uint32x4_t odd_pairs = vuzp2q_u32(pairs_0, pairs_1);
    const uint32x4_t pair_power = vshlq_u32(vdupq_n_u32(1), vreinterpretq_s32_u16(pair_widths));
    const uint64x2_t fours_0 =
        vmlal_u32(vmovl_u32(vget_low_u32(even_pairs)), vget_low_u32(odd_pairs), vget_low_u32(pair_power));
    const uint64x2_t fours_1 = vmlal_high_u32(vmovl_high_u32(even_pairs), odd_pairs, pair_power);
    const uint32x4_t four_widths = vpaddlq_u16(pair_widths);

    const uint64x2_t widths = vpaddlq_u32(four_widths);
    const unsigned width_0 = static_cast<unsigned>(vgetq_lane_u64(widths, 0));
    const unsigned width_1 = static_cast<unsigned>(vgetq_lane_u64(widths, 1));
    if (width_0 <= BitWriter::MAX_PUT && width_1 <= BitWriter::MAX_PUT) {
        const uint64x2_t second_fours = vshlq_u64(vzip2q_u64(fours_0, fours_1), vreinterpretq_s64_u32(four_widths));
        const uint64x2_t eights = vorrq_u64(vzip1q_u64(fours_0, fours_1), second_fours);
        writer.put(vgetq_lane_u64(eights, 0), width_0);
        writer.put(vgetq_lane_u64(eights, 1), width_1);
    } else {
        writer.put(vgetq_lane_u64(fours_0, 0), vgetq_lane_u32(four_widths, 0));
        writer.put(vgetq_lane_u64(fours_0, 1), vgetq_lane_u32(four_widths, 1));
        writer.put(vgetq_lane_u64(fours_1, 0), vgetq_lane_u32(four_widths, 2));
        writer.put(vgetq_lane_u64(fours_1, 1), vgetq_lane_u32(four_widths, 3));
    }
}

// The entries of the residuals -REACH to REACH - 1, in this order.
template <int REACH>
struct Table {
    uint8x16x4_t sixties[REACH / 32];

    explicit Table(const uint8_t* plane) {
        for (int k = 0; k < REACH / 32; k++) {
            for (int part = 0; part < 4; part++) {
                const int residual = 64 * k + 16 * part - REACH;
                sixties[k].val[part] = vld1q_u8(plane + (residual & 255));
            }
        }
    }

    // index: residual + REACH. One look-up chooses among 64 entries; where an index is beyond them the first gives 0, and
    // the next leaves what is there.
    uint8x16_t look_up(uint8x16_t index) const {
        uint8x16_t found = vqtbl4q_u8(sixties[0], index);
        if constexpr (REACH == 64) found = vqtbx4q_u8(found, sixties[1], vsubq_u8(index, vdupq_n_u8(64)));
        return found;
    }
};

// Puts blocks of 32 residuals: those within REACH by look-ups, the others one by one.
template <int REACH>
void put_blocks(BitWriter& out, const LiteralCodes& codes, const uint8_t* bytes, size_t count) {
    const Table<REACH> low(codes.low);
    const Table<REACH> high(codes.high);
    const Table<REACH> length(codes.length);
    BitWriter writer = out;
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        const uint8x16_t index_0 = vaddq_u8(vld1q_u8(bytes + i), vdupq_n_u8(REACH));
        const uint8x16_t index_1 = vaddq_u8(vld1q_u8(bytes + i + 16), vdupq_n_u8(REACH));
        if (vmaxvq_u8(vmaxq_u8(index_0, index_1)) < 2 * REACH) {
            put_16(writer, low.look_up(index_0), high.look_up(index_0), length.look_up(index_0));
            put_16(writer, low.look_up(index_1), high.look_up(index_1), length.look_up(index_1));
        } else {
            BitWriter copy = writer;  // so that the writer itself stays in registers
            put_literals_scalar(copy, codes, bytes + i, 32);
            writer = copy;
        }
    }
    out = writer;
    put_literals_scalar(out, codes, bytes + i, count - i);
}

}  // namespace

void put_literals_neon(BitWriter& writer, const LiteralCodes& codes, const uint8_t* bytes, size_t count) {
    if (count < 32) {
        put_literals_scalar(writer, codes, bytes, count);
    } else if (codes.wide) {
        put_blocks<64>(writer, codes, bytes, count);
    } else {
        put_blocks<32>(writer, codes, bytes, count);
    }
}

}  // namespace cnnviz

#endif  // CNNVIZ_NEON
