#include "kernels/maps.h"

#include <cstring>

namespace cnnviz {
namespace {

constexpr uint32_t HALF_INFINITY = 0x7C00;
constexpr unsigned HALF_TO_FLOAT_BITS = 23 - 10;           // mantissa of float32, mantissa of float16
constexpr uint32_t HALF_BIAS = (127u - 15) << 23;          // exponents of float32 count from 127, of float16 from 15
constexpr float HALF_SMALLEST = 1.0f / (1 << 24);          // of the subnormal values

float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

uint32_t to_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

struct Half {
    uint16_t bits;
};

struct BHalf {
    uint16_t bits;
};

float widen(float value) { return value; }

float widen(uint8_t value) { return static_cast<float>(value); }

float widen(BHalf value) { return from_bits(static_cast<uint32_t>(value.bits) << 16); }

// By integers, so that it does not matter whether the processor is set to flush subnormal numbers.
float widen(Half value) {
    const uint32_t magnitude = value.bits & 0x7FFFu;
    const uint32_t sign = (value.bits & 0x8000u) << 16;
    const uint32_t biases = magnitude >= HALF_INFINITY ? 2 * HALF_BIAS : HALF_BIAS;
    const uint32_t normal = (magnitude << HALF_TO_FLOAT_BITS) + biases;
    const uint32_t subnormal = to_bits(static_cast<float>(magnitude) * HALF_SMALLEST);
    return from_bits(sign | (magnitude < 0x0400 ? subnormal : normal));
}

template <class Value>
void widen_row(const Value* values, ptrdiff_t step, size_t count, float* out) {
    if (step == 1) {
        for (size_t x = 0; x < count; x++) out[x] = widen(values[x]);
    } else {
        for (size_t x = 0; x < count; x++) out[x] = widen(values[static_cast<ptrdiff_t>(x) * step]);
    }
}

template <class Value>
void widen_block(const Maps& maps, size_t first, size_t last, size_t top, size_t bottom, float* out) {
    const size_t size = (bottom - top) * maps.width;
    const Value* corner = static_cast<const Value*>(maps.data) + static_cast<ptrdiff_t>(first) * maps.step_c +
                          static_cast<ptrdiff_t>(top) * maps.step_y;
    if (maps.step_c == 1) {  // channels last: values of neighbouring channels share cache lines
        for (size_t y = 0; y < bottom - top; y++) {
            for (size_t x = 0; x < maps.width; x++) {
                const Value* cell = corner + static_cast<ptrdiff_t>(y) * maps.step_y +
                                    static_cast<ptrdiff_t>(x) * maps.step_x;
                for (size_t c = 0; c < last - first; c++) out[c * size + y * maps.width + x] = widen(cell[c]);
            }
        }
        return;
    }
    for (size_t c = 0; c < last - first; c++) {
        for (size_t y = 0; y < bottom - top; y++) {
            const Value* row =
                corner + static_cast<ptrdiff_t>(c) * maps.step_c + static_cast<ptrdiff_t>(y) * maps.step_y;
            widen_row(row, maps.step_x, maps.width, out + c * size + y * maps.width);
        }
    }
}

}  // namespace

bool needs_scratch(const Maps& maps, bool whole_channels) {
    const bool rows_follow = !whole_channels || maps.height == 1 || maps.step_y == static_cast<ptrdiff_t>(maps.width);
    return maps.dtype != Dtype::Float32 || (maps.step_x != 1 && maps.width > 1) || !rows_follow;
}

Block read_block(const Maps& maps, size_t first, size_t last, size_t top, size_t bottom, float* scratch) {
    if (!needs_scratch(maps, bottom - top > 1)) {
        return {static_cast<const float*>(maps.data) + static_cast<ptrdiff_t>(first) * maps.step_c +
                    static_cast<ptrdiff_t>(top) * maps.step_y,
                maps.step_c};
    }
    switch (maps.dtype) {
        case Dtype::Float32:
            widen_block<float>(maps, first, last, top, bottom, scratch);
            break;
        case Dtype::Float16:
            widen_block<Half>(maps, first, last, top, bottom, scratch);
            break;
        case Dtype::BFloat16:
            widen_block<BHalf>(maps, first, last, top, bottom, scratch);
            break;
        case Dtype::UInt8:
            widen_block<uint8_t>(maps, first, last, top, bottom, scratch);
            break;
    }
    return {scratch, static_cast<ptrdiff_t>((bottom - top) * maps.width)};
}

}  // namespace cnnviz
