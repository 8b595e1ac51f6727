// Draws seeded random sheets under the sanitizers, at every vector level, and compares each pixel with its definition.
//
// Usage: fuzz_kernels FIRST_SEED COUNT. Shapes from 1x1, scales from 1 to 64 and below 1, every alignment, strips of any
// height, any dtype and strides, NaN and infinities. Every array lies in memory of exactly its size. Ranges, moments,
// overlays, maps made smaller, lists of entries and the records of tiles are compared likewise. Prints the levels.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/entries.h"
#include "kernels/measure.h"
#include "kernels/overlay.h"
#include "kernels/render.h"
#include "kernels/shrink.h"
#include "sheets/manifest.h"

namespace {

using Random = std::mt19937_64;

template <class Value>
struct Exact {  // memory of exactly this many values
    explicit Exact(size_t count) : values(new Value[count]()), size(count) {}
    Value* get() const { return values.get(); }
    Value& operator[](size_t i) const { return values[i]; }
    std::unique_ptr<Value[]> values;
    size_t size;
};

size_t pick(Random& random, size_t low, size_t high) { return low + random() % (high - low + 1); }

bool one_in(Random& random, size_t n) { return random() % n == 0; }

[[noreturn]] void fail(const char* what, const char* level, size_t seed) {
    std::fprintf(stderr, "seed %zu, %s: %s\n", seed, level, what);
    std::exit(1);
}

float some_value(Random& random, bool odd) {
    if (odd && one_in(random, 9)) {
        const float special[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                                 -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::max(),
                                 -std::numeric_limits<float>::max(),      1e-42f,
                                 0.0f,                                    -0.0f};
        return special[random() % 8];
    }
    return static_cast<float>(static_cast<double>(random() % 20001) / 1000.0 - 10.0);
}

// Positions of align left, center or corners, or of nearest neighbours; see geometry.sampling_positions.
void place(Random& random, size_t n, size_t size, int32_t* index, float* fraction) {
    const size_t way = random() % 4;
    for (size_t d = 0; d < size; d++) {
        const double scale = static_cast<double>(n) / static_cast<double>(size);
        double at = static_cast<double>(d) * scale;
        if (way == 1) at = (static_cast<double>(d) + 0.5) * scale - 0.5;
        if (way == 2) at = size > 1 ? static_cast<double>(d) * static_cast<double>(n - 1) / static_cast<double>(size - 1) : 0;
        if (way == 3) at = std::floor(at);
        at = std::min(std::max(at, 0.0), static_cast<double>(n - 1));
        index[d] = static_cast<int32_t>(std::floor(at));
        fraction[d] = static_cast<float>(at - std::floor(at));
        if (fraction[d] == 1) {
            index[d]++;
            fraction[d] = 0;
        }
    }
}

struct Case {
    Random random;
    size_t count, height, width, tile_h, tile_w;
    Exact<float> values;   // as the definition reads them, (count, height, width)
    Exact<uint8_t> memory;  // as the kernels read them
    Exact<float> low, high;
    Exact<int32_t> row_index, col_index;
    Exact<float> row_fraction, col_fraction;
    cnnviz::Sheet sheet{};
    size_t rows;  // of the sheet

    explicit Case(size_t seed)
        : random(seed),
          count(pick(random, 1, 7)),
          height(pick(random, 1, 9)),
          width(one_in(random, 4) ? pick(random, 1, 70) : pick(random, 1, 20)),
          tile_h(tile_side(height)),
          tile_w(tile_side(width)),
          values(count * height * width),
          memory(4 * count * height * width),
          low(count),
          high(count),
          row_index(tile_h),
          col_index(tile_w),
          row_fraction(tile_h),
          col_fraction(tile_w) {
        fill();
        for (size_t c = 0; c < count; c++) {
            low[c] = some_value(random, false);
            high[c] = one_in(random, 5) ? low[c] : low[c] + static_cast<float>(pick(random, 1, 20));
        }
        place(random, height, tile_h, row_index.get(), row_fraction.get());
        place(random, width, tile_w, col_index.get(), col_fraction.get());
        const size_t columns = pick(random, 1, count);
        const size_t gap = one_in(random, 2) ? 0 : pick(random, 1, 9);
        const size_t label = one_in(random, 2) ? 0 : pick(random, 1, 5);
        const size_t margin = one_in(random, 2) ? 0 : pick(random, 1, 9);
        const size_t grid_rows = (count + columns - 1) / columns;
        sheet.low = low.get();
        sheet.high = high.get();
        sheet.rows = {row_index.get(), row_fraction.get(), tile_h};
        sheet.cols = {col_index.get(), col_fraction.get(), tile_w};
        sheet.grid = {columns, tile_h, tile_w, label + tile_h + gap, tile_w + gap, margin + label, margin};
        sheet.paint = {pick(random, one_in(random, 9) ? 1 : 250, 256), one_in(random, 2) ? 0.0f : 0.5f,
                       static_cast<uint8_t>(random()), static_cast<uint8_t>(random())};
        sheet.width = 2 * margin + columns * (tile_w + gap) - gap;
        rows = 2 * margin + grid_rows * (label + tile_h + gap) - gap;
    }

    size_t tile_side(size_t side) {
        if (one_in(random, 6)) return pick(random, 1, side);
        return std::min<size_t>(side * pick(random, 1, one_in(random, 8) ? 64 : 9) + random() % 3, 600);
    }

    void fill() {
        const bool odd = one_in(random, 2);
        const cnnviz::Dtype dtypes[] = {cnnviz::Dtype::Float32, cnnviz::Dtype::BFloat16, cnnviz::Dtype::UInt8};
        const cnnviz::Dtype dtype = dtypes[one_in(random, 2) ? 0 : random() % 3];
        sheet.maps = {memory.get(), dtype, count, height, width, 0, 0, 0};
        cnnviz::Maps& maps = sheet.maps;
        const ptrdiff_t c = static_cast<ptrdiff_t>(count);
        const ptrdiff_t h = static_cast<ptrdiff_t>(height);
        const ptrdiff_t w = static_cast<ptrdiff_t>(width);
        const ptrdiff_t steps[3][3] = {{h * w, w, 1}, {1, w * c, c}, {h * w, 1, h}};
        const ptrdiff_t* chosen = steps[one_in(random, 2) ? 0 : random() % 3];
        maps.step_c = chosen[0];
        maps.step_y = chosen[1];
        maps.step_x = chosen[2];
        // Sized by the dtype, so that reading past the end is noticed.
        const size_t bytes = dtype == cnnviz::Dtype::Float32 ? 4 : dtype == cnnviz::Dtype::BFloat16 ? 2 : 1;
        memory = Exact<uint8_t>(bytes * values.size);
        maps.data = memory.get();
        for (size_t i = 0; i < values.size; i++) {
            const size_t at = static_cast<size_t>(static_cast<ptrdiff_t>(i / (height * width)) * maps.step_c +
                                                  static_cast<ptrdiff_t>(i / width % height) * maps.step_y +
                                                  static_cast<ptrdiff_t>(i % width) * maps.step_x);
            float value = some_value(random, odd);
            uint32_t bits;
            if (dtype == cnnviz::Dtype::UInt8) {
                memory[at] = static_cast<uint8_t>(random());
                value = memory[at];
            } else if (dtype == cnnviz::Dtype::BFloat16) {
                std::memcpy(&bits, &value, 4);
                const uint16_t upper = static_cast<uint16_t>(bits >> 16);
                std::memcpy(memory.get() + 2 * at, &upper, 2);
                bits = static_cast<uint32_t>(upper) << 16;
                std::memcpy(&value, &bits, 4);
            } else {
                std::memcpy(memory.get() + 4 * at, &value, 4);
            }
            values[i] = value;
        }
    }

    // The tile that pixel (y, x) of the sheet belongs to, and where in it; false for the background.
    bool find_tile(size_t y, size_t x, size_t& c, size_t& t, size_t& s) const {
        const cnnviz::Grid& grid = sheet.grid;
        if (y < grid.top || x < grid.left) return false;
        const size_t column = (x - grid.left) / grid.step_x;
        c = (y - grid.top) / grid.step_y * grid.columns + column;
        t = (y - grid.top) % grid.step_y;
        s = (x - grid.left) % grid.step_x;
        return column < grid.columns && c < count && t < tile_h && s < tile_w;
    }

    float normalized(size_t c, size_t y, size_t x) const {
        const float value = values[(c * height + y) * width + x];
        if (!std::isfinite(value)) return std::numeric_limits<float>::quiet_NaN();
        if (low[c] == high[c]) return sheet.paint.flat;
        const float v = (value - low[c]) / (high[c] - low[c]);
        return v < 0 ? 0 : v > 1 ? 1 : v;
    }

    static float blend(float before, float after, float fraction) {
        if (fraction == 0) return before;
        const volatile float step = fraction * (after - before);  // rounded before it is added
        return before + step;
    }

    uint8_t pixel(size_t y, size_t x) const {
        size_t c, t, s;
        if (!find_tile(y, x, c, t, s)) return sheet.paint.background;
        const size_t i = static_cast<size_t>(row_index[t]);
        const size_t j = static_cast<size_t>(col_index[s]);
        const size_t below = std::min(i + 1, height - 1);
        const size_t right = std::min(j + 1, width - 1);
        const float upper = blend(normalized(c, i, j), normalized(c, i, right), col_fraction[s]);
        const float lower = blend(normalized(c, below, j), normalized(c, below, right), col_fraction[s]);
        const float v = blend(upper, lower, row_fraction[t]);
        if (std::isnan(v)) return sheet.paint.bad;
        const volatile float scaled = v * static_cast<float>(sheet.paint.levels - 1);
        return static_cast<uint8_t>(std::floor(scaled + 0.5f));
    }
};

void check_render(Case& drawn, const cnnviz::Dispatch& dispatch, const std::vector<uint8_t>& expected, size_t seed) {
    const size_t strip_rows = pick(drawn.random, 1, drawn.rows);
    for (size_t start = 0; start < drawn.rows; start += strip_rows) {
        const size_t stop = std::min(start + strip_rows, drawn.rows);
        const Exact<uint8_t> out((stop - start) * drawn.sheet.width);
        if (!cnnviz::render_strip(dispatch, drawn.sheet, start, stop, 2, out.get())) fail("no memory", dispatch.name, seed);
        if (!std::equal(out.get(), out.get() + out.size, expected.begin() + static_cast<ptrdiff_t>(start * drawn.sheet.width)))
            fail("a pixel differs", dispatch.name, seed);
    }
}

// Values from one end of a range to the other, and beyond it, at all bits of their definition.
void check_normalize(Random& random, const cnnviz::Dispatch* const* levels, size_t level_count, size_t seed) {
    const auto some = [&](int exponent) { return std::ldexp(static_cast<float>((1 << 23) + random() % (1 << 23)), exponent - 24); };
    const size_t width = pick(random, 1, 40), rows = pick(random, 1, 5);
    const Exact<float> values(width * rows);
    std::vector<cnnviz::Span> spans;
    std::vector<float> expected;
    for (size_t row = 0; row < rows; row++) {
        const int exponent = static_cast<int>(pick(random, 0, 100)) - 50;
        const float low = one_in(random, 2) ? 0 : some(exponent), high = low + some(exponent);
        spans.push_back(cnnviz::span_of({low, high}, 0));
        for (size_t x = 0; x < width; x++) {
            float& value = values[row * width + x];
            value = low + some(exponent + 1 - static_cast<int>(random() % 9));
            const float v = (value - low) / (high - low);
            expected.push_back(std::min(v, 1.0f));
        }
    }
    for (size_t level = 0; level < level_count; level++) {
        const Exact<float> out(values.size + cnnviz::ROW_PADDING);
        const cnnviz::Block block = {values.get(), static_cast<ptrdiff_t>(width)};
        if (levels[level]->lines.normalize_rows(block, spans.data(), {out.get(), rows, width}) ||
            !std::equal(expected.begin(), expected.end(), out.get()))
            fail("a normalised value differs", levels[level]->name, seed);
    }
}

void check_overlay(Case& drawn, const std::vector<uint8_t>& index, const char* level, size_t seed) {
    Random& random = drawn.random;
    const Exact<uint8_t> colors(256 * 3);
    const Exact<uint16_t> weights(256);
    const Exact<uint8_t> photo(drawn.tile_h * drawn.tile_w * 3);
    for (size_t i = 0; i < colors.size; i++) colors[i] = static_cast<uint8_t>(random());
    for (size_t i = 0; i < weights.size; i++) weights[i] = static_cast<uint16_t>(random() % 257);
    for (size_t i = 0; i < photo.size; i++) photo[i] = static_cast<uint8_t>(random());
    const cnnviz::Overlay overlay = {colors.get(),      weights.get(), photo.get(),
                                     drawn.sheet.grid, drawn.count,   drawn.sheet.width};
    const Exact<uint8_t> entries(index.size());
    std::copy(index.begin(), index.end(), entries.get());
    const Exact<uint8_t> out(3 * index.size());
    if (!cnnviz::blend_strip(overlay, entries.get(), 0, drawn.rows, out.get())) fail("no memory", level, seed);
    for (size_t i = 0; i < out.size; i++) {
        const size_t y = i / 3 / drawn.sheet.width;
        const size_t x = i / 3 % drawn.sheet.width;
        const uint8_t entry = index[i / 3];
        uint32_t expected = colors[3u * entry + i % 3];
        size_t c, t, s;
        if (drawn.find_tile(y, x, c, t, s)) {
            expected = (weights[entry] * expected + (256u - weights[entry]) * photo[(t * drawn.tile_w + s) * 3 + i % 3] + 128) / 256;
        }
        if (out[i] != expected) fail("a colour differs", level, seed);
    }
}

void check_measures(const Case& drawn, const cnnviz::Dispatch& dispatch, size_t seed) {
    const Exact<float> low(drawn.count), high(drawn.count);
    const Exact<double> mean(drawn.count), deviation(drawn.count), zeros(drawn.count);
    const Exact<int64_t> nan(drawn.count), infinite(drawn.count);
    const cnnviz::Maps& maps = drawn.sheet.maps;
    const Exact<float> low_alone(drawn.count), high_alone(drawn.count);
    const Exact<int64_t> nonfinite(drawn.count);
    int64_t* const asked = seed % 2 ? nonfinite.get() : nullptr;
    if (!cnnviz::channel_range(dispatch, maps, low_alone.get(), high_alone.get(), asked) ||
        !cnnviz::channel_measures(dispatch, maps, 1 + seed % 3,
                                  {low.get(), high.get(), mean.get(), deviation.get(), zeros.get(), nan.get(),
                                   infinite.get()}))
        fail("no memory", dispatch.name, seed);
    if (std::memcmp(low.get(), low_alone.get(), 4 * low.size) != 0 ||
        std::memcmp(high.get(), high_alone.get(), 4 * high.size) != 0)
        fail("a range differs from the one measured alone", dispatch.name, seed);
    const size_t size = drawn.height * drawn.width;
    for (size_t c = 0; c < drawn.count; c++) {
        const float* values = drawn.values.get() + c * size;
        double total = 0, squares = 0;
        size_t finite = 0;
        float least = std::numeric_limits<float>::infinity(), greatest = -least;
        for (size_t i = 0; i < size; i++) {
            if (!std::isfinite(values[i])) continue;
            finite++;
            total += static_cast<double>(values[i]);
            least = std::min(least, values[i]);
            greatest = std::max(greatest, values[i]);
        }
        const double middle = total / static_cast<double>(finite);
        for (size_t i = 0; i < size; i++) {
            if (std::isfinite(values[i])) squares += std::pow(static_cast<double>(values[i]) - middle, 2);
        }
        const double spread = std::sqrt(squares / static_cast<double>(finite));
        // Sums are taken in another order: they differ in their last bits, in units of what was summed.
        const double unit = 1 + std::max(std::abs(static_cast<double>(least)), std::abs(static_cast<double>(greatest)));
        const auto differ = [unit](double x, double y) { return !(std::abs(x - y) <= 1e-9 * unit); };
        const bool sound = finite == 0 ? std::isnan(low[c]) && std::isnan(high[c]) && std::isnan(mean[c])
                                       : low[c] == least && high[c] == greatest && !differ(mean[c], middle) &&
                                             !differ(deviation[c], spread);
        const auto count = [&](auto test) { return std::count_if(values, values + size, test); };
        if (!sound || nan[c] != count([](float v) { return std::isnan(v); }) ||
            infinite[c] != count([](float v) { return std::isinf(v); }) ||
            (asked && nonfinite[c] != nan[c] + infinite[c]) ||
            std::llround(zeros[c] * static_cast<double>(size)) != count([](float v) { return v == 0; }))
            fail("a measure differs", dispatch.name, seed);
    }
}

void check_places(const Case& drawn, Random& random, size_t seed) {
    const size_t size = drawn.height * drawn.width;
    const Exact<int64_t> channel(pick(random, 1, 9)), places(channel.size);
    const Exact<float> values(channel.size);
    for (size_t i = 0; i < channel.size; i++) {
        channel[i] = static_cast<int64_t>(random() % drawn.count);
        values[i] = drawn.values[static_cast<size_t>(channel[i]) * size + random() % size];
    }
    if (!cnnviz::first_places(drawn.sheet.maps, channel.get(), values.get(), channel.size, places.get()))
        fail("no memory", "", seed);
    for (size_t i = 0; i < channel.size; i++) {
        const float* map = drawn.values.get() + static_cast<size_t>(channel[i]) * size;
        const size_t expected = static_cast<size_t>(std::find(map, map + size, values[i]) - map);
        if (places[i] != static_cast<int64_t>(expected < size ? expected : 0)) fail("a place differs", "", seed);
    }
}

// Lists of entries, filled by batches and merges, beside all entries sorted. Few scores, so that many are equal, and few
// images, so that many come twice.
void check_entries(Random& random, size_t seed) {
    struct Entry {
        float score;
        int64_t digest;
    };
    const size_t channels = pick(random, 1, 20), size = pick(random, 1, 9);
    const bool drawn = one_in(random, 2);
    const auto score_of = [&](int64_t image, size_t c) {
        const uint64_t mixed = (static_cast<uint64_t>(image) + 7 * c + seed) * 0x9E3779B97F4A7C15u >> 60;
        return mixed ? static_cast<float>(mixed / 3) : std::numeric_limits<float>::quiet_NaN();
    };
    struct Held {
        Held(size_t channels, size_t size) : scores(channels * size), digests(scores.size), positions(scores.size) {
            std::fill_n(scores.get(), scores.size, std::numeric_limits<float>::quiet_NaN());
            std::fill_n(digests.get(), digests.size, INT64_MAX);
            std::fill_n(positions.get(), positions.size, -1);
        }
        Exact<float> scores;
        Exact<int64_t> digests;
        Exact<int32_t> positions;
    };
    std::vector<int64_t> seen;
    const auto fill = [&](const Held& held, size_t width) {
        const cnnviz::EntryLists lists = {held.scores.get(), held.digests.get(), held.positions.get(), channels, width, drawn};
        for (size_t batch = pick(random, 0, 3); batch > 0; batch--) {
            const size_t images = pick(random, 1, 6);
            const Exact<float> scores(images * channels);
            const Exact<int64_t> digests(images);
            const Exact<bool> touched(channels);
            for (size_t n = 0; n < images; n++) {
                seen.push_back(digests[n] = static_cast<int64_t>(random() % 15) - 7);
                for (size_t c = 0; c < channels; c++) scores[n * channels + c] = score_of(digests[n], c);
            }
            cnnviz::enter(lists, scores.get(), digests.get(), images, touched.get());
            for (size_t i = 0; i < held.positions.size; i++) {
                if (held.positions[i] >= -1) continue;
                const size_t n = static_cast<size_t>(-2 - held.positions[i]);
                if (!touched[i / width] || n >= images || held.digests[i] != digests[n]) fail("an entry is of another image", "", seed);
                held.positions[i] = static_cast<int32_t>(held.digests[i]) + 7;
            }
        }
        return lists;
    };
    const Held held(channels, size), others(channels, size);
    const cnnviz::EntryLists lists = fill(held, size);
    cnnviz::merge(lists, fill(others, size));
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    for (size_t c = 0; c < channels; c++) {
        std::vector<Entry> expected;
        for (const int64_t digest : seen) {
            if (!std::isnan(score_of(digest, c))) expected.push_back({score_of(digest, c), digest});
        }
        if (!drawn) std::stable_sort(expected.begin(), expected.end(), [](auto& a, auto& b) { return a.score > b.score; });
        for (size_t slot = 0; slot < size; slot++) {
            const size_t i = c * size + slot;
            const bool none = slot >= expected.size();
            if (none != std::isnan(held.scores[i]) ||
                (!none && (held.scores[i] != expected[slot].score || held.digests[i] != expected[slot].digest ||
                           held.positions[i] != static_cast<int32_t>(held.digests[i]) + 7)))
                fail("an entry differs", "", seed);
        }
    }
}

// The share that value k of `from` has in value i of `to`; 0 outside its window, which `inside` tells.
double share(size_t from, size_t to, size_t i, size_t k, bool& inside) {
    inside = i == k;
    if (from == to) return inside ? 1 : 0;
    const float scale = static_cast<float>(from) / static_cast<float>(to);
    const float center = static_cast<float>(static_cast<double>(scale) * (static_cast<double>(i) + 0.5));
    const auto first = static_cast<long>(std::max(static_cast<double>(center - scale) + 0.5, 0.0));
    const auto last = std::min(static_cast<long>(static_cast<double>(center + scale) + 0.5), static_cast<long>(from));
    double total = 0, own = 0;
    for (long j = first; j < last; j++) {
        const double weight = std::max(0.0, 1 - std::abs(static_cast<double>(j) + 0.5 - static_cast<double>(center)) / static_cast<double>(scale));
        total += weight;
        if (j == static_cast<long>(k)) own = weight;
    }
    inside = first <= static_cast<long>(k) && static_cast<long>(k) < last;
    return own / total;
}

void check_shrink(Case& drawn, const cnnviz::Dispatch* const* levels, size_t level_count, size_t seed) {
    const size_t height = one_in(drawn.random, 4) ? drawn.height : pick(drawn.random, 1, drawn.height);
    const size_t width = one_in(drawn.random, 4) ? drawn.width : pick(drawn.random, 1, drawn.width);
    const size_t odd = one_in(drawn.random, 4) ? pick(drawn.random, 0, drawn.count - 1) : drawn.count;
    Exact<float> low(drawn.count), high(drawn.count), first(drawn.count * height * width);
    for (size_t c = 0; c < drawn.count; c++) {
        low[c] = c == odd ? std::numeric_limits<float>::quiet_NaN() : drawn.low[c];
        high[c] = c == odd ? std::numeric_limits<float>::quiet_NaN() : drawn.high[c];
    }
    for (size_t level = 0; level < level_count; level++) {
        const Exact<float> out(first.size);
        if (!cnnviz::shrink(*levels[level], drawn.sheet.maps, low.get(), high.get(), height, width, out.get()))
            fail("no memory", levels[level]->name, seed);
        if (level == 0) std::copy(out.get(), out.get() + out.size, first.get());
        for (size_t i = 0; i < out.size; i++) {
            const bool both_nan = std::isnan(out[i]) && std::isnan(first[i]);
            if (out[i] != first[i] && !both_nan) fail("levels shrink differently", levels[level]->name, seed);
        }
    }
    for (size_t i = 0; i < first.size; i++) {
        const size_t c = i / (height * width);
        const float least = c == odd ? 0 : low[c], greatest = c == odd ? 0 : high[c];
        double sum = 0;
        for (size_t y = 0; y < drawn.height; y++) {
            bool row_inside, column_inside;
            const double down = share(drawn.height, height, i / width % height, y, row_inside);
            for (size_t x = 0; x < drawn.width && row_inside; x++) {
                const double across = share(drawn.width, width, i % width, x, column_inside);
                const float value = drawn.values[(c * drawn.height + y) * drawn.width + x];
                if (!column_inside) continue;
                const float clamped = std::min(std::max(value, least), greatest);
                sum += std::isfinite(value) ? down * across * static_cast<double>(clamped) : std::nan("");
            }
        }
        const double unit = 1 + std::max(std::abs(static_cast<double>(least)), std::abs(static_cast<double>(greatest)));
        if (std::isnan(sum) != std::isnan(first[i]) || std::abs(sum - static_cast<double>(first[i])) > 2e-6 * unit)
            fail("a value that was shrunk differs", levels[0]->name, seed);
    }
}

// A JSON array of random numbers in memory of exactly its size; the numbers are kept in `values`.
Exact<char> some_array(Random& random, size_t count, std::vector<std::string>& values) {
    const char* const numbers[] = {"0", "-1", "null", "0.125", "-1.2345678901234567e-308", "16777216.0"};
    std::string text = "[";
    for (size_t i = 0; i < count; i++) {
        values.emplace_back(numbers[random() % 6]);
        text += (i > 0 ? "," : "") + values.back();
    }
    text += "]";
    Exact<char> array(text.size());
    std::memcpy(array.get(), text.data(), text.size());
    return array;
}

void check_tiles(size_t seed) {
    Random random(seed);
    const size_t count = pick(random, 1, 12);
    const bool own_ranges = one_in(random, 2);
    const size_t missing = one_in(random, 8) ? 1 : 0;
    std::vector<std::string> channel, number, reduction, score;
    const Exact<char> channels = some_array(random, count, channel);
    const Exact<char> numbers = some_array(random, count * (own_ranges ? 5 : 7) - missing, number);
    const Exact<char> reductions = some_array(random, one_in(random, 2) ? count : 0, reduction);
    const Exact<char> scores = some_array(random, one_in(random, 2) ? count : 0, score);
    const Exact<int64_t> nan(count), infinite(count);
    const Exact<bool> flat(count), dead(count);
    for (size_t i = 0; i < count; i++) {
        nan[i] = one_in(random, 2) ? std::numeric_limits<int64_t>::max() : 0;
        infinite[i] = static_cast<int64_t>(random() % 3);
        flat[i] = one_in(random, 2);
        dead[i] = one_in(random, 2);
    }
    const cnnviz::Grid grid = {pick(random, 1, 5), 7, 8, 0x7FFFFFFF, 9, 10, 11};
    const cnnviz::TileColumns columns = {
        count, grid, {channels.get(), channels.size}, own_ranges, {numbers.get(), numbers.size}, nan.get(), infinite.get(),
        flat.get(), dead.get(), {reductions.get(), reductions.size}, {scores.get(), scores.size}};
    const Exact<char> out(cnnviz::tiles_bound(columns));
    const size_t size = cnnviz::write_tiles(columns, out.get());
    std::string expected;
    for (size_t i = 0, at = 0; i < count && missing == 0; i++) {
        const size_t y = 10 + i / grid.columns * grid.step_y;
        const size_t x = 11 + i % grid.columns * grid.step_x;
        const std::string range[] = {number[at], number[at + 1]};
        at += own_ranges ? 0 : 2;
        std::string flags = std::string(flat[i] ? ",\"flat\"" : "") + (dead[i] ? ",\"dead\"" : "") +
                            (nan[i] > 0 || infinite[i] > 0 ? ",\"nonfinite\"" : "");
        expected += (i > 0 ? ",{\"channel\":" : "[{\"channel\":") + channel[i] + ",\"box\":[" + std::to_string(y) + "," +
                    std::to_string(x) + "," + std::to_string(y + 7) + "," + std::to_string(x + 8) + "],\"vmin\":" +
                    range[0] + ",\"vmax\":" + range[1] + ",\"min\":" + number[at] + ",\"max\":" + number[at + 1] +
                    ",\"mean\":" + number[at + 2] + ",\"std\":" + number[at + 3] + ",\"zeros\":" + number[at + 4] +
                    ",\"nan\":" + std::to_string(nan[i]) + ",\"inf\":" + std::to_string(infinite[i]) + ",\"flags\":[" +
                    (flags.empty() ? flags : flags.substr(1)) + "]";
        if (!reduction.empty()) expected += ",\"reduce\":" + reduction[i];
        if (!score.empty()) expected += ",\"rank\":" + score[i];
        expected += i + 1 < count ? "}" : "}]";
        at += 5;
    }
    if (expected != std::string(out.get(), size)) fail("the records of tiles differ", "", seed);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: fuzz_kernels FIRST_SEED COUNT\n");
        return 2;
    }
    const cnnviz::Dispatch* levels[cnnviz::MAX_LEVELS];
    const size_t level_count = cnnviz::supported_levels(levels);
    const size_t first = std::strtoull(argv[1], nullptr, 10);
    const size_t count = std::strtoull(argv[2], nullptr, 10);
    for (size_t seed = first; seed < first + count; seed++) {
        Case drawn(seed);
        std::vector<uint8_t> expected(drawn.rows * drawn.sheet.width);
        for (size_t i = 0; i < expected.size(); i++) expected[i] = drawn.pixel(i / drawn.sheet.width, i % drawn.sheet.width);
        for (size_t level = 0; level < level_count; level++) {
            check_render(drawn, *levels[level], expected, seed);
            check_measures(drawn, *levels[level], seed);
        }
        check_overlay(drawn, expected, levels[0]->name, seed);
        check_shrink(drawn, levels, level_count, seed);
        check_normalize(drawn.random, levels, level_count, seed);
        check_places(drawn, drawn.random, seed);
        check_entries(drawn.random, seed);
        check_tiles(seed);
    }
    for (size_t level = 0; level < level_count; level++) std::printf("%s\n", levels[level]->name);
    return 0;
}
