// Which processor the code is for, and how a function is marked that needs more of it than others.

#pragma once

// What versions of a loop for several levels have in common is a function of this kind, which each of them inlines.
#if defined(__GNUC__)
#define CNNVIZ_INLINE __attribute__((always_inline)) inline
#define CNNVIZ_PREFETCH(address) __builtin_prefetch(address)
#else
#define CNNVIZ_INLINE inline
#define CNNVIZ_PREFETCH(address) static_cast<void>(address)
#endif

// Vector versions for x86-64 are written with GCC's and Clang's target attributes. What Microsoft's compiler and clang-cl
// make is scalar: their headers lack the instructions that no flag asks for.
#if defined(__x86_64__) && defined(__GNUC__)
#define CNNVIZ_X86 1
#if !defined(CNNVIZ_TARGET_AVX2)  // defined where instructions are emulated, by tests/native/emulated
#define CNNVIZ_TARGET_AVX2 __attribute__((target("avx2,fma,bmi,bmi2,pclmul")))
#define CNNVIZ_TARGET_AVX512 \
    __attribute__((target("avx2,fma,bmi,bmi2,pclmul,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")))
// Hides how a vector was made: GCC 12 makes constants anew in each round of a loop that has no register for them.
#define CNNVIZ_KEEP(vector) __asm__("" : "+x"(vector))
#endif
#else
#define CNNVIZ_X86 0
#endif

// Every processor of 64-bit ARM has NEON. Its versions take the bytes of a number to lie lowest first. Other machines use
// the scalar ones.
#if defined(__aarch64__) && defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define CNNVIZ_NEON 1
#else
#define CNNVIZ_NEON 0
#endif
