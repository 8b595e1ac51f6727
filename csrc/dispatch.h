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
#include "target.h"

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
