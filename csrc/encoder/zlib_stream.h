// Bytes -> one zlib stream (RFC 1950), for any inflater: dynamic blocks with matches at distance 1, as those of strips,
// and stored blocks where that takes less.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dispatch.h"

namespace cnnviz {

// Some of the contents of a stream. Each part has blocks of its own.
struct Contents {
    const uint8_t* bytes;
    size_t count;
};

// The most bytes that put_zlib_stream may write, used or not.
size_t zlib_stream_bound(const std::vector<Contents>& parts);

// Writes the stream of all parts, and returns its size. The bytes are the same at every level of vector instructions.
size_t put_zlib_stream(const Dispatch& dispatch, const std::vector<Contents>& parts, uint8_t* out);

}  // namespace cnnviz
