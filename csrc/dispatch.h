// The dispatch: which version of each inner loop runs, chosen at run time by what the processor can do.
//
// All versions of a loop give the same result, bit for bit; tests/native/test_native.py compares them.

#pragma once

#include <cstddef>
#include <cstdint>

#include "encoder/bit_writer.h"
#include "encoder/filter.h"
#include "encoder/literals.h"
#include "kernels/lines.h"
#include "kernels/measure.h"
#include "kernels/shrink.h"

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

namespace cnnviz {

// One level of vector instructions: its name and its version of each inner loop.
struct Dispatch {
    const char* name;
    // See filter.h, checksums.h, runs.h and literals.h, in this order.
    void (*filter_row)(Filter filter, const uint8_t* row, const uint8_t* above, size_t row_bytes,
                       size_t bytes_per_pixel, uint8_t* residuals);
    uint32_t (*adler32)(uint32_t adler, const uint8_t* bytes, size_t count);
    uint32_t (*crc32)(uint32_t crc, const uint8_t* bytes, size_t count);
    size_t (*literal_span)(const uint8_t* bytes, size_t count);
    size_t (*run_length)(const uint8_t* bytes, size_t count);
    void (*put_literals)(BitWriter& writer, const LiteralCodes& codes, const uint8_t* bytes, size_t count);
    // See kernels/lines.h, kernels/measure.h and kernels/shrink.h.
    LineLoops lines;
    MeasureLoops measure;
    ShrinkLoops shrink;
};

// The levels this processor can run, slowest first: "scalar", then "avx2" and "avx512" where they work, or "neon".
constexpr size_t MAX_LEVELS = 3;
size_t supported_levels(const Dispatch* levels[MAX_LEVELS]);

// The level called `name`, or null when it is unknown or this processor cannot run it.
const Dispatch* find_level(const char* name);

}  // namespace cnnviz
