#include "encoder/runs.h"

#include <cstring>

#include "target.h"

#if CNNVIZ_X86
#include <immintrin.h>
#endif

namespace cnnviz {

size_t run_length_scalar(const uint8_t* bytes, size_t count) {
    size_t i = 1;
    while (i < count && bytes[i] == bytes[0]) i++;
    return i;
}

size_t literal_span_scalar(const uint8_t* bytes, size_t count) {
    size_t i = 0;
    // All bytes of a block are equal when the block equals itself moved by one.
    while (i + RUN_BLOCK <= count && std::memcmp(bytes + i, bytes + i + 1, RUN_BLOCK - 1) != 0) i += RUN_BLOCK;
    return i + RUN_BLOCK <= count ? i : count;
}

#if CNNVIZ_X86

static_assert(RUN_BLOCK == 32, "one 256-bit vector is one block, one 512-bit vector two");

CNNVIZ_TARGET_AVX2 size_t run_length_avx2(const uint8_t* bytes, size_t count) {
    const __m256i value = _mm256_set1_epi8(static_cast<char>(bytes[0]));
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + i));
        const uint32_t equal = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, value)));
        if (equal != ~uint32_t{0}) return i + _tzcnt_u32(~equal);
    }
    while (i < count && bytes[i] == bytes[0]) i++;
    return i;
}

CNNVIZ_TARGET_AVX2 size_t literal_span_avx2(const uint8_t* bytes, size_t count) {
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + i));
        const __m256i first = _mm256_broadcastb_epi8(_mm256_castsi256_si128(v));
        const __m256i differs = _mm256_xor_si256(v, first);
        if (_mm256_testz_si256(differs, differs)) return i;
    }
    return count;
}

CNNVIZ_TARGET_AVX512 size_t run_length_avx512(const uint8_t* bytes, size_t count) {
    const __m512i value = _mm512_set1_epi8(static_cast<char>(bytes[0]));
    size_t i = 0;
    for (; i + 64 <= count; i += 64) {
        const uint64_t differ = _mm512_cmpneq_epi8_mask(_mm512_loadu_si512(bytes + i), value);
        if (differ != 0) return i + _tzcnt_u64(differ);
    }
    if (i < count) {
        const __mmask64 live = ~__mmask64{0} >> (64 - (count - i));
        const uint64_t differ = _mm512_mask_cmpneq_epi8_mask(live, _mm512_maskz_loadu_epi8(live, bytes + i), value);
        if (differ != 0) return i + _tzcnt_u64(differ);
    }
    return count;
}

CNNVIZ_TARGET_AVX512 size_t literal_span_avx512(const uint8_t* bytes, size_t count) {
    const __m512i firsts = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi8(32), 1);
    size_t i = 0;
    for (; i + 64 <= count; i += 64) {
        const __m512i v = _mm512_loadu_si512(bytes + i);
        const uint64_t differ = _mm512_cmpneq_epi8_mask(v, _mm512_permutexvar_epi8(firsts, v));
        if (static_cast<uint32_t>(differ) == 0) return i;
        if (differ >> 32 == 0) return i + 32;
    }
    if (i + 32 <= count) {
        const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + i));
        const __m256i differs = _mm256_xor_si256(v, _mm256_broadcastb_epi8(_mm256_castsi256_si128(v)));
        if (_mm256_testz_si256(differs, differs)) return i;
    }
    return count;
}

#endif  // CNNVIZ_X86

}  // namespace cnnviz
