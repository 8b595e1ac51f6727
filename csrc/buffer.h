// Memory of a known size; null where the system has none left.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace cnnviz {

template <class Value>
using Buffer = std::unique_ptr<Value[]>;

// Holds what was in that memory before.
template <class Value>
Buffer<Value> allocate(size_t count) {
    return Buffer<Value>(new (std::nothrow) Value[count]);
}

template <class Value>
Buffer<Value> allocate_zeros(size_t count) {
    return Buffer<Value>(new (std::nothrow) Value[count]());
}

}  // namespace cnnviz
