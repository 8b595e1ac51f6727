#include "encoder/zlib_stream.h"

#include <algorithm>
#include <cstring>

#include "encoder/block.h"
#include "encoder/checksums.h"
#include "encoder/chunk.h"
#include "encoder/walk.h"
#include "encoder/zlib_format.h"

namespace cnnviz {
namespace {

// Where the bytes that follow are of another kind, a block ends at the end of a piece. A part is cut into 32 pieces, none
// smaller than this: smaller ones take more time than they save bytes. A run over several pieces is all matches of the
// greatest length.
constexpr size_t LEAST_PIECE_BYTES = 16 * MAX_MATCH;
constexpr size_t MOST_PIECES = 32;

size_t piece_bytes(size_t count) {
    return std::max(LEAST_PIECE_BYTES, (count / MOST_PIECES + MAX_MATCH - 1) / MAX_MATCH * MAX_MATCH);
}

// What a block of its own must save: its header, 60 to 100 bytes in atlases, and the time that codes take to make.
constexpr uint64_t HEADER_BITS = 8 * 160;

// The symbols of some bytes, and about how many bits they take in codes of their own.
struct Symbols {
    uint32_t counts[BLOCK_SYMBOLS] = {};
    uint64_t extra_bits = 0;
    uint64_t estimate = 0;
};

// Some bytes of a part; whether others of it are before them.
struct Stretch {
    const uint8_t* first;
    const uint8_t* last;
    bool follows;

    size_t size() const { return static_cast<size_t>(last - first); }
};

// Calls see(piece) with each piece. Matches end with their piece, so that a block has the symbols of its pieces.
template <class See>
void for_each_piece(Stretch span, size_t piece_bytes, See see) {
    while (span.first < span.last) {
        const Stretch piece = {span.first, span.first + std::min(span.size(), piece_bytes), span.follows};
        see(piece);
        span = {piece.last, span.last, true};
    }
}

Symbols count_piece(const Dispatch& dispatch, const Stretch& piece) {
    SymbolCounts seen;
    walk(dispatch, piece.first, piece.size(), seen, piece.follows);
    Symbols symbols;
    seen.total(symbols.counts);
    symbols.extra_bits = seen.extra_bits();
    symbols.estimate = estimate_bits(symbols.counts, symbols.extra_bits);
    return symbols;
}

Symbols join(const Symbols& first, const Symbols& second) {
    Symbols joined;
    for (size_t i = 0; i < BLOCK_SYMBOLS; i++) joined.counts[i] = first.counts[i] + second.counts[i];
    joined.counts[END_OF_BLOCK] = 1;
    joined.extra_bits = first.extra_bits + second.extra_bits;
    joined.estimate = estimate_bits(joined.counts, joined.extra_bits);
    return joined;
}

uint64_t exact_bits(const Symbols& symbols, const BlockCodes& codes) {
    uint64_t bits = symbols.extra_bits;
    for (size_t i = 0; i < BLOCK_SYMBOLS; i++) bits += static_cast<uint64_t>(symbols.counts[i]) * codes.lengths[i];
    return bits;
}

void store(BitWriter& writer, const Stretch& span) {
    for (const uint8_t* bytes = span.first; bytes < span.last;) {
        const size_t size = std::min(static_cast<size_t>(span.last - bytes), STORED_BLOCK_BYTES);
        writer.put(0, 3);
        writer.align();
        writer.put(size | (~size & 0xFFFF) << 16, 32);
        std::memcpy(writer.next, bytes, size);
        writer.next += size;
        bytes += size;
    }
}

// Writes a block of whole pieces, of so many bytes each, that has these symbols.
void put_block(const Dispatch& dispatch, const Stretch& span, size_t piece, const Symbols& symbols, BitWriter& writer) {
    BlockCodes codes;
    make_block_codes(symbols.counts, codes);
    BlockWriter block(dispatch, codes, writer);
    put_block_header(block.bits(), codes);
    const uint64_t header_bits = 8 * static_cast<uint64_t>(block.bits().next - writer.next) + block.bits().count;
    if (header_bits + exact_bits(symbols, codes) >= 8 * span.size()) return store(writer, span);
    const auto put = [&](const Stretch& bytes) { walk(dispatch, bytes.first, bytes.size(), block, bytes.follows); };
    for_each_piece(span, piece, put);
    block.symbol(END_OF_BLOCK);
    writer = block.bits();
}

// Writes the blocks of one part.
void put_contents(const Dispatch& dispatch, const Contents& part, BitWriter& writer) {
    const size_t size = piece_bytes(part.count);
    Stretch block = {part.bytes, part.bytes, false};
    Symbols symbols;
    for_each_piece({part.bytes, part.bytes + part.count, false}, size, [&](const Stretch& piece) {
        const Symbols next = count_piece(dispatch, piece);
        const Symbols joined = join(symbols, next);
        const bool joins = joined.estimate <= symbols.estimate + HEADER_BITS + next.estimate;
        if (!joins) {
            put_block(dispatch, block, size, symbols, writer);
            block = piece;
        }
        block.last = piece.last;
        symbols = joins ? joined : next;
    });
    if (part.count > 0) put_block(dispatch, block, size, symbols, writer);
}

}  // namespace

size_t zlib_stream_bound(const std::vector<Contents>& parts) {
    // A stored block takes up to 42 bits more than its bytes, and there are at most two for each piece. A put may store
    // 8 bytes ahead, and a block may turn out to be stored once its header is written.
    constexpr size_t STORED_HEADS_BYTES = 2 * 6;
    size_t bytes = sizeof ZLIB_HEADER + MAX_BLOCK_HEADER_BYTES + sizeof LAST_BLOCK + ADLER_BYTES + 8;
    for (const Contents& part : parts) bytes += part.count + (part.count / LEAST_PIECE_BYTES + 1) * STORED_HEADS_BYTES;
    return bytes;
}

size_t put_zlib_stream(const Dispatch& dispatch, const std::vector<Contents>& parts, uint8_t* out) {
    BitWriter writer = {out};
    writer.put(ZLIB_HEADER[0] | ZLIB_HEADER[1] << 8, 16);
    uint32_t adler = ADLER32_START;
    for (const Contents& part : parts) {
        put_contents(dispatch, part, writer);
        adler = dispatch.adler32(adler, part.bytes, part.count);
    }
    writer.put(LAST_BLOCK[0], LAST_BLOCK_BITS);
    writer.align();
    return static_cast<size_t>(put_big_endian_32(writer.next, adler) - out);
}

}  // namespace cnnviz
