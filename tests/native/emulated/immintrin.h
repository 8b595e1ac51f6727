// Takes the place of the compiler's header: AVX2 and AVX-512 as functions in C++, for processors that lack them.
//
// They are those of SIMDe 0.8.4, https://github.com/simd-everywhere/simde (not in Debian 13 yet), and below
// those that it lacks, or that round where the processor does not. See fuzz.py, --target avx512.

#pragma once

#define SIMDE_NO_NATIVE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>
#include <simde/x86/clmul.h>
#include <simde/x86/fma.h>

#include <cmath>
#include <cstdint>

#define CNNVIZ_TARGET_AVX2
#define CNNVIZ_TARGET_AVX512
#define CNNVIZ_KEEP(vector)
#define __builtin_cpu_supports(name) true

#undef _mm256_fmadd_ps
#undef _mm256_fnmadd_ps
#undef _mm512_fmadd_ps

inline __m256 fused(__m256 a, float sign, __m256 b, __m256 c) {
    float x[8], y[8], z[8];
    _mm256_storeu_ps(x, a);
    _mm256_storeu_ps(y, b);
    _mm256_storeu_ps(z, c);
    for (int i = 0; i < 8; i++) x[i] = std::fma(sign * x[i], y[i], z[i]);
    return _mm256_loadu_ps(x);
}

inline __m256 _mm256_fmadd_ps(__m256 a, __m256 b, __m256 c) { return fused(a, 1, b, c); }

inline __m256 _mm256_fnmadd_ps(__m256 a, __m256 b, __m256 c) { return fused(a, -1, b, c); }

inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
    float x[16], y[16], z[16];
    _mm512_storeu_ps(x, a);
    _mm512_storeu_ps(y, b);
    _mm512_storeu_ps(z, c);
    for (int i = 0; i < 16; i++) x[i] = std::fma(x[i], y[i], z[i]);
    return _mm512_loadu_ps(x);
}

inline __m512d _mm512_cvtps_pd(__m256 values) {
    float singles[8];
    double doubles[8];
    _mm256_storeu_ps(singles, values);
    for (int i = 0; i < 8; i++) doubles[i] = singles[i];
    return _mm512_loadu_pd(doubles);
}

inline __mmask16 _mm512_testn_epi32_mask(__m512i a, __m512i b) {
    return static_cast<__mmask16>(~_mm512_test_epi32_mask(a, b));
}

inline unsigned _tzcnt_u32(unsigned value) { return value ? static_cast<unsigned>(__builtin_ctz(value)) : 32; }

inline uint64_t _tzcnt_u64(uint64_t value) { return value ? static_cast<uint64_t>(__builtin_ctzll(value)) : 64; }
