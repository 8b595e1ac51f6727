// Runs one inner loop of csrc many times, at one level, so that its instructions can be counted.
//
// Usage: loops LOOP LEVEL TIMES. Without arguments it prints each loop, a tab, and for how many units (bytes, values,
// pixels) once counts. benchmarks/arm_instructions.py counts.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "dispatch.h"
#include "encoder/block.h"
#include "encoder/strip.h"
#include "kernels/render.h"

namespace {

using cnnviz::Dispatch;
using cnnviz::Filter;

std::mt19937 generator(1);

// Bytes like residuals: small ones are the most frequent, and none is beyond `reach`.
std::vector<uint8_t> residuals(size_t count, double spread, double reach) {
    std::normal_distribution<double> draw(0, spread);
    std::vector<uint8_t> bytes(count);
    for (uint8_t& byte : bytes) {
        double value = draw(generator);
        while (value <= -reach || value >= reach) value = draw(generator);
        byte = static_cast<uint8_t>(static_cast<int>(value));
    }
    return bytes;
}

std::vector<float> floats(size_t count) {
    std::uniform_real_distribution<float> draw(0, 1);
    std::vector<float> values(count);
    for (float& value : values) value = draw(generator);
    return values;
}

struct Loop {
    std::string name;
    size_t units;
    std::function<void(const Dispatch&)> once;
};

Loop filter_row(const char* name, Filter filter) {
    constexpr size_t BYTES = 4096;
    return {name, BYTES, [=, row = residuals(BYTES, 40, 120), above = residuals(BYTES, 40, 120),
                          out = std::vector<uint8_t>(BYTES)](const Dispatch& level) mutable {
                level.filter_row(filter, row.data(), above.data(), BYTES, 1, out.data());
            }};
}

Loop put_literals(const char* name, double spread, double reach) {
    constexpr size_t BYTES = 4096;
    const std::vector<uint8_t> bytes = residuals(BYTES, spread, reach);
    cnnviz::SymbolCounts counts;
    counts.literals(bytes.data(), BYTES);
    uint32_t symbols[cnnviz::BLOCK_SYMBOLS];
    counts.total(symbols);
    cnnviz::BlockCodes codes;
    cnnviz::make_block_codes(symbols, codes);
    return {name, BYTES, [=, out = std::vector<uint8_t>(2 * BYTES)](const Dispatch& level) mutable {
                cnnviz::BitWriter writer = {out.data()};
                level.put_literals(writer, codes.literals, bytes.data(), BYTES);
            }};
}

// Maps drawn as a sheet of one row of tiles, by the level's loops and what stands around them.
Loop render(const char* name, size_t side, size_t tile) {
    constexpr size_t COUNT = 8;
    std::vector<int32_t> index(tile);
    std::vector<float> fraction(tile);
    for (size_t x = 0; x < tile; x++) {
        const size_t place = x * side;
        index[x] = static_cast<int32_t>(place / tile);
        const bool last = place / tile == side - 1;
        fraction[x] = last ? 0 : static_cast<float>(place % tile) / static_cast<float>(tile);
    }
    return {name, COUNT * tile * tile,
            [=, maps = floats(COUNT * side * side), low = std::vector<float>(COUNT, 0.0f),
             high = std::vector<float>(COUNT, 1.0f),
             out = std::vector<uint8_t>(COUNT * tile * tile)](const Dispatch& level) mutable {
                cnnviz::Sheet sheet{};
                const auto step = static_cast<ptrdiff_t>(side);
                sheet.maps = {maps.data(), cnnviz::Dtype::Float32, COUNT, side, side, step * step, step, 1};
                sheet.low = low.data();
                sheet.high = high.data();
                sheet.rows = sheet.cols = {index.data(), fraction.data(), tile};
                sheet.grid = {COUNT, tile, tile, tile, tile, 0, 0};
                sheet.paint = {256, 0, 0, 255};
                sheet.width = COUNT * tile;
                cnnviz::render_strip(level, sheet, 0, tile, 1, out.data());
            }};
}

// The sheet of a map that rises evenly in each tile.
Loop encode(const char* name) {
    constexpr size_t ROWS = 64;
    constexpr size_t WIDTH = 2048;
    std::vector<uint8_t> pixels(ROWS * WIDTH);
    for (size_t i = 0; i < pixels.size(); i++) {
        const size_t y = i / WIDTH, x = i % WIDTH;
        pixels[i] = static_cast<uint8_t>(60 + y * (x / 128 % 5) / 4 + x % 128 * (x / 128 % 7) / 8);
    }
    return {name, pixels.size(),
            [=, out = std::vector<uint8_t>(cnnviz::strip_bound(ROWS, WIDTH))](const Dispatch& level) mutable {
                cnnviz::encode_strip(level, {pixels.data(), ROWS, WIDTH, 1}, out.data());
            }};
}

std::vector<Loop> all_loops() {
    constexpr size_t BYTES = 4096;
    constexpr size_t VALUES = 56 * 56;
    constexpr size_t WIDTH = 2048;
    const std::vector<uint8_t> small = residuals(BYTES, 3, 12), zeros(BYTES);
    const std::vector<float> values = floats(VALUES), line = floats(WIDTH + cnnviz::LINE_PADDING),
                             below = floats(WIDTH + cnnviz::LINE_PADDING), fractions = floats(8);
    return {
        filter_row("filter_row Sub", Filter::Sub),
        filter_row("filter_row Up", Filter::Up),
        filter_row("filter_row Paeth", Filter::Paeth),
        {"adler32", BYTES, [=](const Dispatch& level) { level.adler32(1, small.data(), BYTES); }},
        {"crc32", BYTES, [=](const Dispatch& level) { level.crc32(0, small.data(), BYTES); }},
        {"literal_span", BYTES, [=](const Dispatch& level) { level.literal_span(small.data(), BYTES); }},
        {"run_length", BYTES, [=](const Dispatch& level) { level.run_length(zeros.data(), BYTES); }},
        put_literals("put_literals, residuals to 12", 3, 12),
        put_literals("put_literals, residuals to 60", 20, 60),
        {"normalize_rows, 4 rows of 56 values", 4 * 56,
         [=, spans = std::vector<cnnviz::Span>(4, cnnviz::span_of({0, 1}, 0)),
          out = std::vector<float>(4 * 56 + cnnviz::ROW_PADDING)](const Dispatch& level) mutable {
             level.lines.normalize_rows({values.data(), 56}, spans.data(), {out.data(), 4, 56});
         }},
        {"blend_rows, 8 rows", 8 * WIDTH,
         [=, out = std::vector<uint8_t>(8 * WIDTH)](const Dispatch& level) mutable {
             level.lines.blend_rows(line.data(), below.data(), WIDTH, fractions.data(), 8, 255, out.data());
         }},
        {"least_and_greatest", VALUES,
         [=](const Dispatch& level) { level.measure.least_and_greatest(values.data(), VALUES); }},
        {"take_in", VALUES,
         [=, least = std::vector<int32_t>(VALUES), greatest = std::vector<int32_t>(VALUES)](
             const Dispatch& level) mutable {
             level.measure.take_in(values.data(), VALUES, least.data(), greatest.data());
         }},
        {"overview", VALUES, [=](const Dispatch& level) { level.measure.overview(values.data(), VALUES); }},
        {"squares", VALUES, [=](const Dispatch& level) { level.measure.squares(values.data(), VALUES, 0.5); }},
        {"average_rows, 4 rows", 4 * 112,
         [=, out = std::vector<float>(112)](const Dispatch& level) mutable {
             level.shrink.average_rows(values.data(), fractions.data(), 4, 112, {0, 1}, out.data());
         }},
        render("render_strip, 7 to 224 px", 7, 224),
        render("render_strip, 28 to 112 px", 28, 112),
        render("render_strip, 56 to 112 px", 56, 112),
        render("render_strip, 20 to 29 px", 20, 29),
        encode("encode_strip"),
    };
}

}  // namespace

int main(int argc, char** argv) {
    for (const Loop& loop : all_loops()) {
        if (argc != 4) {
            std::printf("%s\t%zu\n", loop.name.c_str(), loop.units);
        } else if (loop.name == argv[1]) {
            const Dispatch* level = cnnviz::find_level(argv[2]);
            if (level == nullptr) return 2;
            for (long times = std::strtol(argv[3], nullptr, 10); times > 0; times--) loop.once(*level);
            return 0;
        }
    }
    return argc == 4 ? 2 : 0;
}
