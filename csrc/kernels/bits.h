// The bits of a float32.
#pragma once

#include <cstdint>
#include <cstring>

#include "target.h"

namespace cnnviz {

constexpr int32_t GREATEST_FINITE = 0x7F7FFFFF;

CNNVIZ_INLINE int32_t bits_of(float value) {
    int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

CNNVIZ_INLINE int32_t magnitude_of(float value) { return bits_of(value) & 0x7FFFFFFF; }

CNNVIZ_INLINE bool is_finite(float value) { return magnitude_of(value) <= GREATEST_FINITE; }

}  // namespace cnnviz
