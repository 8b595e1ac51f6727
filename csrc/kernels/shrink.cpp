#include "kernels/shrink.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "buffer.h"
#include "dispatch.h"

namespace cnnviz {
namespace {

// Which neighbouring values of a row or column each value of the result averages: `size` of them from `first` on.
struct Window {
    size_t first;
    size_t size;
    const float* weights;
};

class Windows {
  public:
    Windows(size_t from, size_t to)
        : windows_(allocate<Window>(to)), weights_(allocate<float>(to * most(from, to))) {
        if (!allocated()) return;
        for (size_t i = 0; i < to; i++) windows_[i] = place(from, to, i, weights_.get() + i * most(from, to));
    }

    bool allocated() const { return windows_ && weights_; }
    const Window& operator[](size_t i) const { return windows_[i]; }

  private:
    // Values that a window has at most.
    static size_t most(size_t from, size_t to) { return from == to ? 1 : 2 * (from / to + 1) + 1; }

    // As ATen has it (aten/src/ATen/native/cpu/UpSampleKernel.cpp, _compute_weights_aa), with its roundings, so that a
    // NaN reaches the same values. A side that stays as it is has windows of one value.
    static Window place(size_t from, size_t to, size_t i, float* weights) {
        if (from == to) {
            weights[0] = 1;
            return {i, 1, weights};
        }
        const float scale = static_cast<float>(from) / static_cast<float>(to);  // and half the width of a window
        const float center = static_cast<float>(static_cast<double>(scale) * (static_cast<double>(i) + 0.5));
        const double begin = std::max(static_cast<double>(center - scale) + 0.5, 0.0);
        const double end = std::min(static_cast<double>(center + scale) + 0.5, static_cast<double>(from));
        const size_t first = static_cast<size_t>(begin);
        const size_t size = std::min(static_cast<size_t>(end) - first, most(from, to));
        float total = 0;
        for (size_t k = 0; k < size; k++) {
            const double distance = static_cast<double>(first + k) + 0.5 - static_cast<double>(center);
            weights[k] = static_cast<float>(std::max(1 - std::abs(distance / static_cast<double>(scale)), 0.0));
            total += weights[k];
        }
        for (size_t k = 0; k < size; k++) weights[k] /= total;
        return {first, size, weights};
    }

    Buffer<Window> windows_;
    Buffer<float> weights_;
};

CNNVIZ_INLINE float clamped(float value, Range range) {
    const bool finite = std::abs(value) <= std::numeric_limits<float>::max();
    return finite ? std::min(std::max(value, range.low), range.high) : std::numeric_limits<float>::quiet_NaN();
}

CNNVIZ_INLINE void average_rows(const float* values, const float* weights, size_t rows, size_t width, Range range,
                                float* out) {
    // Columns whose sums stay in registers.
    constexpr size_t COLUMNS = 32;
    size_t x = 0;
    for (; x + COLUMNS <= width; x += COLUMNS) {
        float sums[COLUMNS] = {};
        for (size_t k = 0; k < rows; k++) {
            for (size_t j = 0; j < COLUMNS; j++) sums[j] += weights[k] * clamped(values[k * width + x + j], range);
        }
        std::memcpy(out + x, sums, sizeof sums);
    }
    for (; x < width; x++) {
        float sum = 0;
        for (size_t k = 0; k < rows; k++) sum += weights[k] * clamped(values[k * width + x], range);
        out[x] = sum;
    }
}

float average(const float* values, const Window& window) {
    float sum = 0;
    for (size_t k = 0; k < window.size; k++) sum += window.weights[k] * values[window.first + k];
    return sum;
}

}  // namespace

void average_rows_scalar(const float* values, const float* weights, size_t rows, size_t width, Range range,
                         float* out) {
    average_rows(values, weights, rows, width, range, out);
}

#if CNNVIZ_X86
CNNVIZ_TARGET_AVX2 void average_rows_avx2(const float* values, const float* weights, size_t rows, size_t width,
                                          Range range, float* out) {
    average_rows(values, weights, rows, width, range, out);
}
CNNVIZ_TARGET_AVX512 void average_rows_avx512(const float* values, const float* weights, size_t rows, size_t width,
                                              Range range, float* out) {
    average_rows(values, weights, rows, width, range, out);
}
#endif

bool shrink(const Dispatch& dispatch, const Maps& maps, const float* low, const float* high, size_t height,
            size_t width, float* out) {
    const Windows down(maps.height, height);
    const Windows across(maps.width, width);
    const Buffer<float> row = allocate<float>(maps.width);
    if (!down.allocated() || !across.allocated() || !row) return false;
    const auto end_of_range = [](float end) { return std::isnan(end) ? 0.0f : end; };
    return for_each_channel(maps, 0, maps.count, [&](size_t c, const float* values) {
        const Range range = {end_of_range(low[c]), end_of_range(high[c])};
        float* next = out + c * height * width;
        for (size_t y = 0; y < height; y++) {
            const Window& window = down[y];
            dispatch.shrink.average_rows(values + window.first * maps.width, window.weights, window.size, maps.width,
                                         range, row.get());
            for (size_t x = 0; x < width; x++) *next++ = average(row.get(), across[x]);
        }
    });
}

}  // namespace cnnviz
