// Bytes -> literals and matches at distance 1, and both -> bits in the codes of a block.

#pragma once

#include <cstddef>
#include <cstdint>

#include "dispatch.h"
#include "encoder/block.h"

namespace cnnviz {

// Passes bytes to the sink as literals and matches at distance 1. The rule is in runs.h. A run may go on from the byte
// before the first where these bytes follow others.
template <class Sink>
void walk(const Dispatch& dispatch, const uint8_t* bytes, size_t count, Sink& sink, bool follows = false) {
    for (size_t i = 0; i < count;) {
        const size_t span = dispatch.literal_span(bytes + i, count - i);
        if (span > 0) sink.literals(bytes + i, span);
        i += span;
        if (i == count) break;
        size_t left = dispatch.run_length(bytes + i, count - i);
        const uint8_t* end = bytes + i + left;
        if ((i == 0 && !follows) || bytes[i - 1] != bytes[i]) {
            sink.literals(bytes + i, 1);
            left--;
        }
        if (left >= MAX_MATCH) sink.matches(MAX_MATCH, left / MAX_MATCH);
        left %= MAX_MATCH;
        if (left >= MIN_MATCH) {
            sink.matches(left, 1);
        } else if (left > 0) {
            sink.literals(end - left, left);
        }
        i = static_cast<size_t>(end - bytes);
    }
}

// A sink that writes.
class BlockWriter {
  public:
    BlockWriter(const Dispatch& dispatch, const BlockCodes& codes, const BitWriter& writer)
        : dispatch_(dispatch), codes_(codes), writer_(writer) {}

    BitWriter& bits() { return writer_; }
    void symbol(size_t symbol) { writer_.put(codes_.codes[symbol], codes_.lengths[symbol]); }
    void literals(const uint8_t* bytes, size_t count) {
        dispatch_.put_literals(writer_, codes_.literals, bytes, count);
    }
    void matches(size_t length, size_t times) {
        for (; times > 0; times--) writer_.put(codes_.match_bits[length], codes_.match_widths[length]);
    }

  private:
    const Dispatch& dispatch_;
    const BlockCodes& codes_;
    BitWriter writer_;
};

}  // namespace cnnviz
