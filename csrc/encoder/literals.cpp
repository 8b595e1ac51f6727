#include "encoder/literals.h"

#include "target.h"

#if CNNVIZ_X86
#include <immintrin.h>
#endif

namespace cnnviz {

void put_literals_scalar(BitWriter& out, const LiteralCodes& codes, const uint8_t* bytes, size_t count) {
    BitWriter writer = out;
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        uint64_t bits = 0;
        unsigned width = 0;
        for (size_t j = 0; j < 4; j++) {
            const uint32_t code = codes.joined[bytes[i + j]];
            bits |= static_cast<uint64_t>(code & 0xFFFF) << width;
            width += code >> 16;
        }
        writer.put(bits, width);
    }
    for (; i < count; i++) writer.put(codes.joined[bytes[i]] & 0xFFFF, codes.joined[bytes[i]] >> 16);
    out = writer;
}

#if CNNVIZ_X86

// Both vector versions look up the low byte, the high byte and the length of every code and then join neighbours:
//     joined(x, y) = x | y << length(x),   length(joined) = length(x) + length(y),
// from codes in lanes of 16 bits to pairs in lanes of 32 (at most 28 used), fours in lanes of 64 (at most 56), and
// eights. Eight codes take 8 to 24 bits on typical residuals. Where one group of eight exceeds a put, the groups of
// four are put.
//
// Interleaving works within 128 bits, on 16 codes: `low` holds codes 0-7 and `high` 8-15 of each such part, as fours
// {0, 1} and {2, 3}. Interleaving the two again gives the fours {0, 2} and {1, 3}, whose joints are the eights in
// order.

namespace {

// Lanes are written as vectors and read as numbers. `volatile` keeps this a store and loads, for which the loop has
// room. GCC 12 would otherwise extract every lane by shuffles, which are what limits the loop.
CNNVIZ_TARGET_AVX2 inline void put_lanes(BitWriter& writer, const volatile uint64_t* bits,
                                         const volatile uint64_t* widths, size_t count) {
    for (size_t i = 0; i < count; i++) writer.put(bits[i], static_cast<unsigned>(widths[i]));
}

// The same for groups of eight codes.
CNNVIZ_TARGET_AVX2 inline void put_eights(BitWriter& writer, const volatile uint64_t* bits,
                                          const volatile uint64_t* widths, size_t count) {
    for (size_t i = 0; i < count; i++) writer.put_bytes(bits[i], static_cast<unsigned>(widths[i]));
}

CNNVIZ_TARGET_AVX2 inline __m256i kept(__m256i constant) {
    CNNVIZ_KEEP(constant);
    return constant;
}

struct Constants256 {
    __m256i low_8 = kept(_mm256_set1_epi16(0xFF));
    __m256i low_16 = kept(_mm256_set1_epi32(0xFFFF));
    __m256i low_32 = kept(_mm256_set1_epi64x(0xFFFFFFFF));
    __m256i ones_8 = kept(_mm256_set1_epi8(1));
    __m256i ones_16 = kept(_mm256_set1_epi16(1));
    __m256i most = kept(_mm256_set1_epi64x(BitWriter::MAX_PUT_BYTES));

    CNNVIZ_TARGET_AVX2 Constants256() {}
};

// Codes in lanes of 16 bits to fours in lanes of 64. first_lengths: of the first code of each pair, in lanes of 32;
// first_widths: of the first pair of each four, in lanes of 64.
CNNVIZ_TARGET_AVX2 inline __m256i join_fours_256(const Constants256& constants, __m256i codes, __m256i first_lengths,
                                                 __m256i first_widths) {
    const __m256i second = _mm256_sllv_epi32(_mm256_srli_epi32(codes, 16), first_lengths);
    const __m256i pairs = _mm256_or_si256(_mm256_and_si256(codes, constants.low_16), second);
    const __m256i second_pair = _mm256_sllv_epi64(_mm256_srli_epi64(pairs, 32), first_widths);
    return _mm256_or_si256(_mm256_and_si256(pairs, constants.low_32), second_pair);
}

__attribute__((always_inline)) CNNVIZ_TARGET_AVX2 inline void put_32(const Constants256& constants, BitWriter& writer,
                                                                     __m256i low_bytes, __m256i high_bytes,
                                                                     __m256i lengths) {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i first_lengths = _mm256_and_si256(lengths, constants.low_8);
    const __m256i pair_widths = _mm256_maddubs_epi16(lengths, constants.ones_8);
    const __m256i first_widths = _mm256_and_si256(pair_widths, constants.low_16);
    const __m256i low =
        join_fours_256(constants, _mm256_unpacklo_epi8(low_bytes, high_bytes),
                       _mm256_unpacklo_epi16(first_lengths, zero), _mm256_unpacklo_epi32(first_widths, zero));
    const __m256i high =
        join_fours_256(constants, _mm256_unpackhi_epi8(low_bytes, high_bytes),
                       _mm256_unpackhi_epi16(first_lengths, zero), _mm256_unpackhi_epi32(first_widths, zero));
    const __m256i even = _mm256_unpacklo_epi64(low, high);
    const __m256i odd = _mm256_unpackhi_epi64(low, high);
    const __m256i four_widths = _mm256_madd_epi16(pair_widths, constants.ones_16);
    const __m256i even_widths = _mm256_and_si256(four_widths, constants.low_32);
    const __m256i widths = _mm256_sad_epu8(lengths, zero);
    alignas(32) uint64_t lane_bits[8];
    alignas(32) uint64_t lane_widths[8];
    const __m256i too_wide = _mm256_cmpgt_epi64(widths, constants.most);
    if (_mm256_testz_si256(too_wide, too_wide)) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(lane_bits),
                           _mm256_or_si256(even, _mm256_sllv_epi64(odd, even_widths)));
        _mm256_store_si256(reinterpret_cast<__m256i*>(lane_widths), widths);
        put_eights(writer, lane_bits, lane_widths, 4);
    } else {
        // Interleaved once more they are the fours {0, 1} and {2, 3} of each part again.
        const __m256i odd_widths = _mm256_srli_epi64(four_widths, 32);
        const __m256i first_bits = _mm256_unpacklo_epi64(even, odd);
        const __m256i last_bits = _mm256_unpackhi_epi64(even, odd);
        const __m256i first_lanes = _mm256_unpacklo_epi64(even_widths, odd_widths);
        const __m256i last_lanes = _mm256_unpackhi_epi64(even_widths, odd_widths);
        _mm256_store_si256(reinterpret_cast<__m256i*>(lane_bits),
                           _mm256_permute2x128_si256(first_bits, last_bits, 0x20));
        _mm256_store_si256(reinterpret_cast<__m256i*>(lane_bits + 4),
                           _mm256_permute2x128_si256(first_bits, last_bits, 0x31));
        _mm256_store_si256(reinterpret_cast<__m256i*>(lane_widths),
                           _mm256_permute2x128_si256(first_lanes, last_lanes, 0x20));
        _mm256_store_si256(reinterpret_cast<__m256i*>(lane_widths + 4),
                           _mm256_permute2x128_si256(first_lanes, last_lanes, 0x31));
        put_lanes(writer, lane_bits, lane_widths, 8);
    }
}

struct Table32 {
    __m256i negative;
    __m256i positive;
};

CNNVIZ_TARGET_AVX2 inline __m256i load_sixteen_256(const uint8_t* entries) {
    return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(entries)));
}

// The entries of the residuals -16 to 15.
CNNVIZ_TARGET_AVX2 inline Table32 load_table_256(const uint8_t* plane) {
    return {load_sixteen_256(plane + 256 - 16), load_sixteen_256(plane)};
}

// index: the lowest four bits. residuals: their signs choose the half.
CNNVIZ_TARGET_AVX2 inline __m256i look_up_256(const Table32& table, __m256i index, __m256i residuals) {
    return _mm256_blendv_epi8(_mm256_shuffle_epi8(table.positive, index), _mm256_shuffle_epi8(table.negative, index),
                              residuals);
}

// The entries of the residuals -64 to 63: bits 4, 5 and the sign choose among eight sixteens.
CNNVIZ_TARGET_AVX2 inline __m256i look_up_wide_256(const uint8_t* plane, __m256i index, __m256i residuals) {
    const auto sixteen = [&](size_t first) CNNVIZ_TARGET_AVX2 {
        return _mm256_shuffle_epi8(load_sixteen_256(plane + first), index);
    };
    const auto half = [&](size_t first) CNNVIZ_TARGET_AVX2 {
        const __m256i bit_4 = _mm256_slli_epi16(residuals, 3);
        const __m256i low = _mm256_blendv_epi8(sixteen(first), sixteen(first + 16), bit_4);
        const __m256i high = _mm256_blendv_epi8(sixteen(first + 32), sixteen(first + 48), bit_4);
        return _mm256_blendv_epi8(low, high, _mm256_slli_epi16(residuals, 2));
    };
    return _mm256_blendv_epi8(half(0), half(256 - 64), residuals);
}

// Whether all residuals are at least -REACH and less than REACH.
template <int REACH>
CNNVIZ_TARGET_AVX2 inline bool within_256(__m256i residuals) {
    const __m256i beyond = _mm256_set1_epi8(static_cast<char>(-2 * REACH));
    return _mm256_testz_si256(_mm256_add_epi8(residuals, _mm256_set1_epi8(REACH)), beyond);
}

// Puts blocks of 32 residuals: those within REACH by `put_block`, the others by `put_beyond`.
template <int REACH, class PutBlock, class PutBeyond>
CNNVIZ_TARGET_AVX2 inline void put_blocks_256(BitWriter& out, const LiteralCodes& codes, const uint8_t* bytes,
                                              size_t count, PutBlock put_block, PutBeyond put_beyond) {
    BitWriter writer = out;  // a copy, which stays in registers: no function is handed its address
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + i));
        if (within_256<REACH>(v)) {
            put_block(writer, v, _mm256_and_si256(v, _mm256_set1_epi8(15)));
        } else {
            out = writer;
            put_beyond(out, codes, bytes + i, 32);
            writer = out;
        }
    }
    out = writer;
    put_literals_scalar(out, codes, bytes + i, count - i);
}

CNNVIZ_TARGET_AVX2 void put_wide_256(BitWriter& out, const LiteralCodes& codes, const uint8_t* bytes, size_t count) {
    const Constants256 constants;
    const auto put = [&](BitWriter& writer, __m256i v, __m256i index) CNNVIZ_TARGET_AVX2 {
        put_32(constants, writer, look_up_wide_256(codes.low, index, v), look_up_wide_256(codes.high, index, v),
               look_up_wide_256(codes.length, index, v));
    };
    put_blocks_256<64>(out, codes, bytes, count, put, put_literals_scalar);
}

}  // namespace

CNNVIZ_TARGET_AVX2 void put_literals_avx2(BitWriter& out, const LiteralCodes& codes, const uint8_t* bytes,
                                          size_t count) {
    if (codes.wide) return put_wide_256(out, codes, bytes, count);
    const Constants256 constants;
    const Table32 low = load_table_256(codes.low);
    const Table32 high = load_table_256(codes.high);
    const Table32 length = load_table_256(codes.length);
    const auto put = [&](BitWriter& writer, __m256i v, __m256i index) CNNVIZ_TARGET_AVX2 {
        put_32(constants, writer, look_up_256(low, index, v), look_up_256(high, index, v),
               look_up_256(length, index, v));
    };
    put_blocks_256<16>(out, codes, bytes, count, put, put_wide_256);
}

namespace {

CNNVIZ_TARGET_AVX512 inline __m512i join_fours_512(__m512i codes, __m512i first_lengths, __m512i first_widths) {
    const __m512i second = _mm512_sllv_epi32(_mm512_srli_epi32(codes, 16), first_lengths);
    const __m512i pairs = _mm512_or_si512(_mm512_and_si512(codes, _mm512_set1_epi32(0xFFFF)), second);
    const __m512i second_pair = _mm512_sllv_epi64(_mm512_srli_epi64(pairs, 32), first_widths);
    return _mm512_or_si512(_mm512_and_si512(pairs, _mm512_set1_epi64(0xFFFFFFFF)), second_pair);
}

// WHOLE: whether there are 64 codes, none of them of length 0.
template <bool WHOLE>
__attribute__((always_inline)) CNNVIZ_TARGET_AVX512 inline void put_64(BitWriter& writer, __m512i low_bytes,
                                                                       __m512i high_bytes, __m512i lengths) {
    const __m512i zero = _mm512_setzero_si512();
    const __m512i first_lengths = _mm512_and_si512(lengths, _mm512_set1_epi16(0xFF));
    const __m512i pair_widths = _mm512_maddubs_epi16(lengths, _mm512_set1_epi8(1));
    const __m512i first_widths = _mm512_and_si512(pair_widths, _mm512_set1_epi32(0xFFFF));
    const __m512i low =
        join_fours_512(_mm512_unpacklo_epi8(low_bytes, high_bytes), _mm512_unpacklo_epi16(first_lengths, zero),
                       _mm512_unpacklo_epi32(first_widths, zero));
    const __m512i high =
        join_fours_512(_mm512_unpackhi_epi8(low_bytes, high_bytes), _mm512_unpackhi_epi16(first_lengths, zero),
                       _mm512_unpackhi_epi32(first_widths, zero));
    const __m512i even = _mm512_unpacklo_epi64(low, high);
    const __m512i odd = _mm512_unpackhi_epi64(low, high);
    const __m512i four_widths = _mm512_madd_epi16(pair_widths, _mm512_set1_epi16(1));
    const __m512i even_widths = _mm512_and_si512(four_widths, _mm512_set1_epi64(0xFFFFFFFF));
    const __m512i widths = _mm512_sad_epu8(lengths, zero);
    alignas(64) uint64_t lane_bits[16];
    alignas(64) uint64_t lane_widths[16];
    constexpr unsigned MOST = WHOLE ? BitWriter::MAX_PUT_BYTES : BitWriter::MAX_PUT;
    if (_mm512_cmpgt_epi64_mask(widths, _mm512_set1_epi64(MOST)) == 0) {
        _mm512_store_si512(lane_bits, _mm512_or_si512(even, _mm512_sllv_epi64(odd, even_widths)));
        _mm512_store_si512(lane_widths, widths);
        if (WHOLE) {
            put_eights(writer, lane_bits, lane_widths, 8);
        } else {
            put_lanes(writer, lane_bits, lane_widths, 8);
        }
    } else {
        const __m512i odd_widths = _mm512_srli_epi64(four_widths, 32);
        const __m512i first_half = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
        const __m512i last_half = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
        _mm512_store_si512(lane_bits, _mm512_permutex2var_epi64(even, first_half, odd));
        _mm512_store_si512(lane_bits + 8, _mm512_permutex2var_epi64(even, last_half, odd));
        _mm512_store_si512(lane_widths, _mm512_permutex2var_epi64(even_widths, first_half, odd_widths));
        _mm512_store_si512(lane_widths + 8, _mm512_permutex2var_epi64(even_widths, last_half, odd_widths));
        put_lanes(writer, lane_bits, lane_widths, 16);
    }
}

// One permutation chooses among 64 entries by the low six bits of each byte: the residuals -32 to 31 in this order are
// 32 to 63 and 0 to 31.
CNNVIZ_TARGET_AVX512 inline __m512i load_table_512(const uint8_t* plane) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_load_si256(reinterpret_cast<const __m256i*>(plane))),
                              _mm256_load_si256(reinterpret_cast<const __m256i*>(plane + 256 - 32)), 1);
}

// A permutation of two registers chooses among 128 entries; the sign chooses between two of them.
CNNVIZ_TARGET_AVX512 inline __m512i look_up_any_512(const uint8_t* plane, __m512i residuals) {
    const __m512i positive =
        _mm512_permutex2var_epi8(_mm512_load_si512(plane), residuals, _mm512_load_si512(plane + 64));
    const __m512i negative =
        _mm512_permutex2var_epi8(_mm512_load_si512(plane + 128), residuals, _mm512_load_si512(plane + 192));
    return _mm512_mask_mov_epi8(positive, _mm512_movepi8_mask(residuals), negative);
}

}  // namespace

CNNVIZ_TARGET_AVX512 void put_literals_avx512(BitWriter& out, const LiteralCodes& codes, const uint8_t* bytes,
                                              size_t count) {
    const __m512i low = load_table_512(codes.low);
    const __m512i high = load_table_512(codes.high);
    const __m512i length = load_table_512(codes.length);
    const __m512i thirty_two = _mm512_set1_epi8(32);
    const __m512i beyond = _mm512_set1_epi8(static_cast<char>(0xC0));
    BitWriter writer = out;
    size_t i = 0;
    for (; i + 64 <= count; i += 64) {
        const __m512i v = _mm512_loadu_si512(bytes + i);
        __m512i lows = _mm512_permutexvar_epi8(v, low);
        __m512i highs = _mm512_permutexvar_epi8(v, high);
        __m512i lengths = _mm512_permutexvar_epi8(v, length);
        if (_mm512_test_epi8_mask(_mm512_add_epi8(v, thirty_two), beyond) != 0) {
            lows = look_up_any_512(codes.low, v);
            highs = look_up_any_512(codes.high, v);
            lengths = look_up_any_512(codes.length, v);
        }
        put_64<true>(writer, lows, highs, lengths);
    }
    if (i < count) {
        // Bytes past the end get length 0 and code 0: they put nothing.
        const __mmask64 live = ~__mmask64{0} >> (64 - (count - i));
        const __m512i v = _mm512_maskz_loadu_epi8(live, bytes + i);
        put_64<false>(writer, _mm512_maskz_mov_epi8(live, look_up_any_512(codes.low, v)),
               _mm512_maskz_mov_epi8(live, look_up_any_512(codes.high, v)),
               _mm512_maskz_mov_epi8(live, look_up_any_512(codes.length, v)));
    }
    out = writer;
}

#endif  // CNNVIZ_X86

}  // namespace cnnviz
