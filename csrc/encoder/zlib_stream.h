// Bytes -> one zlib stream (RFC 1950), for any inflater: dynamic blocks with matches at distance 1, as those of strips,
// and stored blocks where that takes less.

#pragma once

#include <cstddef>
#include <cstdint>

#include "dispatch.h"

namespace cnnviz {

// The most bytes that put_zlib_stream may write, used or not.
size_t zlib_stream_bound(size_t count);

// Writes the stream, and returns its size. The bytes are the same at every level of vector instructions.
size_t put_zlib_stream(const Dispatch& dispatch, const uint8_t* bytes, size_t count, uint8_t* out);

}  // namespace cnnviz
