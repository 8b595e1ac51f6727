#include "encoder/checksums.h"

#include <algorithm>
#include <array>

#include "target.h"

#if CNNVIZ_X86
#include <immintrin.h>
#endif

namespace cnnviz {
namespace {

// The most bytes after which b cannot have passed 2^32: the largest n with
// 255 n (n + 1) / 2 + (n + 1) (ADLER_PRIME - 1) < 2^32.
constexpr size_t ADLER_RUN = 5552;
static_assert(255ull * ADLER_RUN * (ADLER_RUN + 1) / 2 + (ADLER_RUN + 1ull) * (ADLER_PRIME - 1) < (1ull << 32));
static_assert(255ull * (ADLER_RUN + 1) * (ADLER_RUN + 2) / 2 + (ADLER_RUN + 2ull) * (ADLER_PRIME - 1) >=
              (1ull << 32));

// CRC-32: the remainder of the bits, seen as a polynomial, by x^32 + x^26 + x^23 + ... + 1. Lowest bit = highest power,
// so the polynomial's bits are mirrored too.
constexpr uint32_t CRC_POLYNOMIAL = 0xEDB88320;

constexpr uint32_t crc_times_x(uint32_t remainder) { return (remainder >> 1) ^ (remainder & 1 ? CRC_POLYNOMIAL : 0); }

// SLICES[k][v] is what byte v contributes when k more bytes follow it in the same group of 8.
constexpr size_t CRC_SLICES = 8;
using CrcTables = std::array<std::array<uint32_t, 256>, CRC_SLICES>;

constexpr CrcTables make_crc_tables() {
    CrcTables tables{};
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t remainder = value;
        for (int bit = 0; bit < 8; bit++) remainder = crc_times_x(remainder);
        tables[0][value] = remainder;
    }
    for (size_t slice = 1; slice < CRC_SLICES; slice++) {
        for (uint32_t value = 0; value < 256; value++) {
            const uint32_t before = tables[slice - 1][value];
            tables[slice][value] = (before >> 8) ^ tables[0][before & 0xFF];
        }
    }
    return tables;
}

constexpr CrcTables SLICES = make_crc_tables();

uint32_t little_endian_32(const uint8_t* p) {
    return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8 | static_cast<uint32_t>(p[2]) << 16 |
           static_cast<uint32_t>(p[3]) << 24;
}

// The remainder register itself, without the inversions before and after.
uint32_t crc_remainder(uint32_t remainder, const uint8_t* bytes, size_t count) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const uint32_t low = remainder ^ little_endian_32(bytes + i);
        const uint32_t high = little_endian_32(bytes + i + 4);
        remainder = SLICES[7][low & 0xFF] ^ SLICES[6][low >> 8 & 0xFF] ^ SLICES[5][low >> 16 & 0xFF] ^
                    SLICES[4][low >> 24] ^ SLICES[3][high & 0xFF] ^ SLICES[2][high >> 8 & 0xFF] ^
                    SLICES[1][high >> 16 & 0xFF] ^ SLICES[0][high >> 24];
    }
    for (; i < count; i++) remainder = (remainder >> 8) ^ SLICES[0][(remainder ^ bytes[i]) & 0xFF];
    return remainder;
}

}  // namespace

uint32_t adler32_scalar(uint32_t adler, const uint8_t* bytes, size_t count) {
    uint32_t a = adler & 0xFFFF;
    uint32_t b = adler >> 16;
    while (count > 0) {
        const size_t part = std::min(count, ADLER_RUN);
        for (size_t i = 0; i < part; i++) {
            a += bytes[i];
            b += a;
        }
        a %= ADLER_PRIME;
        b %= ADLER_PRIME;
        bytes += part;
        count -= part;
    }
    return b << 16 | a;
}

uint32_t adler32_combine(uint32_t first, uint32_t second, uint64_t second_bytes) {
    // Over the second string a starts at first_a in place of 1, so a ends higher by first_a - 1, and b by that in each
    // of its steps.
    const uint64_t lift = (first & 0xFFFF) + ADLER_PRIME - 1;
    const uint64_t a = (second & 0xFFFF) + lift;
    const uint64_t b = (first >> 16) + (second >> 16) + lift * (second_bytes % ADLER_PRIME);
    return static_cast<uint32_t>(b % ADLER_PRIME) << 16 | static_cast<uint32_t>(a % ADLER_PRIME);
}

uint32_t crc32_scalar(uint32_t crc, const uint8_t* bytes, size_t count) { return ~crc_remainder(~crc, bytes, count); }

#if CNNVIZ_X86

namespace {

CNNVIZ_TARGET_AVX2 inline uint64_t sum_lanes_64(__m256i v) {
    const __m128i halves = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_add_epi64(halves, _mm_unpackhi_epi64(halves, halves))));
}

CNNVIZ_TARGET_AVX2 inline __m256i widen_sums_32(__m256i v) {
    const __m256i zero = _mm256_setzero_si256();
    return _mm256_add_epi64(_mm256_unpacklo_epi32(v, zero), _mm256_unpackhi_epi32(v, zero));
}

// x^power modulo the CRC polynomial, mirrored.
constexpr uint32_t crc_power(unsigned power) {
    uint32_t remainder = 0x80000000;
    for (unsigned i = 0; i < power; i++) remainder = crc_times_x(remainder);
    return remainder;
}

// A 128-bit lane holds low * x^64 + high (mirrored: its low half has the higher powers). Moving it `bits` ahead
// multiplies by x^bits: low * x^(bits + 64) + high * x^bits. A carry-less product of mirrored numbers comes out divided
// by x, and a constant of 32 bits in a register of 64 stands for itself times x^32: shifted left by one it makes up for
// the first, and 32 is taken off the exponent for the second.
constexpr uint64_t fold_low(unsigned bits) { return static_cast<uint64_t>(crc_power(bits + 64 - 32)) << 1; }
constexpr uint64_t fold_high(unsigned bits) { return static_cast<uint64_t>(crc_power(bits - 32)) << 1; }

constexpr unsigned LANE_BITS = 128;
constexpr unsigned CRC_LANES = 4;
constexpr uint64_t FOLD_GROUP_LOW = fold_low(CRC_LANES * LANE_BITS);
constexpr uint64_t FOLD_GROUP_HIGH = fold_high(CRC_LANES * LANE_BITS);
constexpr uint64_t FOLD_LANE_LOW = fold_low(LANE_BITS);
constexpr uint64_t FOLD_LANE_HIGH = fold_high(LANE_BITS);

CNNVIZ_TARGET_AVX2 inline __m128i load128(const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

CNNVIZ_TARGET_AVX2 inline __m128i fold(__m128i lane, __m128i by, __m128i next) {
    const __m128i moved = _mm_xor_si128(_mm_clmulepi64_si128(lane, by, 0x00), _mm_clmulepi64_si128(lane, by, 0x11));
    return _mm_xor_si128(moved, next);
}

}  // namespace

CNNVIZ_TARGET_AVX2 uint32_t adler32_avx2(uint32_t adler, const uint8_t* bytes, size_t count) {
    // In a vector of 32 bytes byte j is added to b (32 - j) times, and every byte before the vector 32 times more:
    //     b += 32 a + sum (32 - j) byte[j],   a += sum byte[j].
    // `weighted` grows by at most 255 (32 + 31 + 30 + 29) = 31110 a lane and vector, so 2^17 vectors stay below 2^32.
    constexpr size_t PART = size_t{32} << 17;
    static_assert((uint64_t{255} * (32 + 31 + 30 + 29)) << 17 < uint64_t{1} << 32);
    const __m256i zero = _mm256_setzero_si256();
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i weights = _mm256_setr_epi8(32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14,
                                             13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1);
    uint64_t a = adler & 0xFFFF;
    uint64_t b = adler >> 16;
    while (count >= 32) {
        const size_t part = std::min(count & ~size_t{31}, PART);
        __m256i sums = zero;
        __m256i sums_before = zero;
        __m256i weighted = zero;
        for (size_t i = 0; i < part; i += 32) {
            const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + i));
            sums_before = _mm256_add_epi64(sums_before, sums);
            sums = _mm256_add_epi64(sums, _mm256_sad_epu8(v, zero));
            weighted = _mm256_add_epi32(weighted, _mm256_madd_epi16(_mm256_maddubs_epi16(v, weights), ones));
        }
        b += part * a + 32 * sum_lanes_64(sums_before) + sum_lanes_64(widen_sums_32(weighted));
        a += sum_lanes_64(sums);
        a %= ADLER_PRIME;
        b %= ADLER_PRIME;
        bytes += part;
        count -= part;
    }
    return adler32_scalar(static_cast<uint32_t>(b) << 16 | static_cast<uint32_t>(a), bytes, count);
}

CNNVIZ_TARGET_AVX2 uint32_t crc32_pclmul(uint32_t crc, const uint8_t* bytes, size_t count) {
    constexpr size_t GROUP = CRC_LANES * LANE_BITS / 8;
    if (count < GROUP) return crc32_scalar(crc, bytes, count);
    // The remainder so far acts like the first four bytes of what follows.
    __m128i lane0 = _mm_xor_si128(load128(bytes), _mm_cvtsi32_si128(static_cast<int>(~crc)));
    __m128i lane1 = load128(bytes + 16);
    __m128i lane2 = load128(bytes + 32);
    __m128i lane3 = load128(bytes + 48);
    size_t i = GROUP;
    const __m128i group = _mm_set_epi64x(static_cast<int64_t>(FOLD_GROUP_HIGH), static_cast<int64_t>(FOLD_GROUP_LOW));
    for (; i + GROUP <= count; i += GROUP) {
        lane0 = fold(lane0, group, load128(bytes + i));
        lane1 = fold(lane1, group, load128(bytes + i + 16));
        lane2 = fold(lane2, group, load128(bytes + i + 32));
        lane3 = fold(lane3, group, load128(bytes + i + 48));
    }
    const __m128i one_lane = _mm_set_epi64x(static_cast<int64_t>(FOLD_LANE_HIGH), static_cast<int64_t>(FOLD_LANE_LOW));
    lane0 = fold(fold(fold(lane0, one_lane, lane1), one_lane, lane2), one_lane, lane3);
    for (; i + 16 <= count; i += 16) lane0 = fold(lane0, one_lane, load128(bytes + i));
    // What is left is a message of 16 bytes with the same remainder.
    uint8_t last[16];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(last), lane0);
    return ~crc_remainder(crc_remainder(0, last, sizeof last), bytes + i, count - i);
}

#endif  // CNNVIZ_X86

}  // namespace cnnviz
