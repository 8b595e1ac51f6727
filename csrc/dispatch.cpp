#include "dispatch.h"

#include <cstring>

#include "encoder/checksums.h"
#include "encoder/runs.h"

#if CNNVIZ_NEON && defined(__linux__)
#include <sys/auxv.h>
#elif CNNVIZ_NEON && defined(_WIN32)
#include <windows.h>
#endif

namespace cnnviz {
namespace {

constexpr Dispatch SCALAR = {
    "scalar",
    filter_row_scalar,
    adler32_scalar,
    crc32_scalar,
    literal_span_scalar,
    run_length_scalar,
    put_literals_scalar,
    {0, normalize_rows_scalar, enlarge_rows_scalar, blend_rows_scalar},
    {least_and_greatest_scalar, take_in_scalar, overview_scalar, squares_scalar},
    {average_rows_scalar},
};

#if CNNVIZ_X86
constexpr Dispatch AVX2 = {
    "avx2",
    filter_row_avx2,
    adler32_avx2,
    crc32_pclmul,
    literal_span_avx2,
    run_length_avx2,
    put_literals_avx2,
    {8, normalize_rows_avx2, enlarge_rows_avx2, blend_rows_avx2},
    {least_and_greatest_avx2, take_in_avx2, overview_avx2, squares_avx2},
    {average_rows_avx2},
};
// Checksums are far from being the bottleneck, so the 256-bit ones serve here too.
constexpr Dispatch AVX512 = {
    "avx512",
    filter_row_avx512,
    adler32_avx2,
    crc32_pclmul,
    literal_span_avx512,
    run_length_avx512,
    put_literals_avx512,
    {8, normalize_rows_avx2, enlarge_rows_avx2, blend_rows_avx512},
    {least_and_greatest_avx512, take_in_avx512, overview_avx512, squares_avx512},
    {average_rows_avx512},
};

bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("pclmul");
}

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vbmi");
}
#endif

#if CNNVIZ_NEON
// What is scalar here compilers make NEON of as it is: see benchmarks/ARM.md.
constexpr Dispatch neon_with(decltype(Dispatch::crc32) crc32) {
    return {
        "neon",
        filter_row_neon,
        adler32_neon,
        crc32,
        literal_span_neon,
        run_length_neon,
        put_literals_neon,
        {8, normalize_rows_neon, enlarge_rows_neon, blend_rows_neon},
        {least_and_greatest_scalar, take_in_scalar, overview_scalar, squares_scalar},
        {average_rows_scalar},
    };
}
constexpr Dispatch NEON = neon_with(crc32_scalar);
constexpr Dispatch NEON_WITH_CRC32 = neon_with(crc32_arm);

bool has_crc32() {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#elif defined(_WIN32)
    return IsProcessorFeaturePresent(PF_ARM_V8_CRC32_INSTRUCTIONS_AVAILABLE) != 0;
#elif defined(__APPLE__)
    return true;  // since the first Macs with such a processor
#else
    return false;
#endif
}
#endif

}  // namespace

size_t supported_levels(const Dispatch* levels[MAX_LEVELS]) {
    size_t count = 0;
    levels[count++] = &SCALAR;
#if CNNVIZ_X86
    __builtin_cpu_init();
    if (has_avx2()) levels[count++] = &AVX2;
    if (has_avx512()) levels[count++] = &AVX512;
#endif
#if CNNVIZ_NEON
    levels[count++] = has_crc32() ? &NEON_WITH_CRC32 : &NEON;
#endif
    return count;
}

const Dispatch* find_level(const char* name) {
    const Dispatch* levels[MAX_LEVELS];
    const size_t count = supported_levels(levels);
    for (size_t i = 0; i < count; i++) {
        if (std::strcmp(levels[i]->name, name) == 0) return levels[i];
    }
    return nullptr;
}

}  // namespace cnnviz
