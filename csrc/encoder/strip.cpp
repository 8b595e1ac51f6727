#include "encoder/strip.h"

#include <algorithm>
#include <cstdlib>

#include "encoder/block.h"
#include "encoder/checksums.h"
#include "encoder/chunk.h"
#include "encoder/walk.h"

namespace cnnviz {
namespace {

// The filter is chosen, and in strips above EXACT_BYTES the code is made, from pieces of rows scattered over the strip.
// A piece has room for several of the longest matches, so that long runs look like what they are. With 32 pieces for
// the code sheets of enlarged maps become 0.1 to 0.5 % smaller and take 5 % more time.
constexpr size_t PIECE_BYTES = 1024;
constexpr size_t FILTER_PIECES = 4;
constexpr size_t CODE_PIECES = 16;

// Filtered bytes up to which every symbol is counted: those that do not occur then need no code, which makes a 224 px
// tile 4 % smaller.
constexpr size_t EXACT_BYTES = 64 << 10;

// A code made from pieces must cover every symbol: each has weight 1, and this much more for every time it was seen.
// Measured: 2 to 4 gives the smallest sheets; below 4 a strip of zeros exceeds 0.17 % of its size.
constexpr uint32_t COUNTED_WEIGHT = 4;

constexpr size_t ROW_ALIGNMENT = 64;

size_t filtered_size(const Strip& strip) { return strip.rows * (strip.row_bytes + 1); }

size_t stored_size(size_t bytes) { return bytes + (bytes + STORED_BLOCK_BYTES - 1) / STORED_BLOCK_BYTES * 5; }

// Filters pieces of rows into a buffer of its own.
class RowFilter {
  public:
    RowFilter(const Dispatch& dispatch, const Strip& strip) : dispatch_(dispatch), strip_(strip) {
        // Windows and older versions of macOS lack std::aligned_alloc.
        memory_ = static_cast<uint8_t*>(std::malloc(2 * ROW_ALIGNMENT + strip.row_bytes));
        if (memory_ != nullptr)
            residuals_ = memory_ + 2 * ROW_ALIGNMENT - reinterpret_cast<uintptr_t>(memory_) % ROW_ALIGNMENT;
    }
    ~RowFilter() { std::free(memory_); }
    RowFilter(const RowFilter&) = delete;
    RowFilter& operator=(const RowFilter&) = delete;

    bool allocated() const { return memory_ != nullptr; }
    uint8_t* residuals() { return residuals_; }
    // The byte before the residuals, as in the file.
    uint8_t* filter_byte() { return residuals_ - 1; }

    void run(Filter filter, size_t y, size_t begin, size_t count) {
        const uint8_t* row = strip_.pixels + y * strip_.row_bytes + begin;
        *filter_byte() = static_cast<uint8_t>(filter);
        const uint8_t* above = y > 0 ? row - strip_.row_bytes : nullptr;
        dispatch_.filter_row(filter, row, above, count, strip_.bytes_per_pixel, residuals());
    }

  private:
    const Dispatch& dispatch_;
    const Strip& strip_;
    uint8_t* memory_;
    uint8_t* residuals_ = nullptr;
};

// The first row of a strip must not look at the strip above.
Filter row_filter(Filter filter, size_t y) {
    const bool upwards = filter == Filter::Up || filter == Filter::Paeth;
    return y == 0 && upwards ? Filter::Sub : filter;
}

// The fraction, in 1/2^32, of 1/2 + number / ratio. With powers of the plastic number r (r^3 = r + 1) as ratios, 1/r
// and 1/r^2, such points fill a rectangle evenly, however many they are, and never fall in step with the tiles and
// cells of a sheet, as equal distances do.
constexpr uint64_t PLASTIC_32 = 3242174889;          // 2^32 / r
constexpr uint64_t PLASTIC_SQUARED_32 = 2447445414;  // 2^32 / r^2

size_t scatter(size_t number, uint64_t ratio_32, size_t places) {
    return ((0x80000000 + number * ratio_32) & 0xFFFFFFFF) * places >> 32;
}

// Filters and counts piece `number`, which begins with a whole pixel.
void count_piece(const Dispatch& dispatch, const Strip& strip, Filter filter, size_t number, RowFilter& rows,
                 SymbolCounts& counts) {
    const size_t count = std::min(PIECE_BYTES / strip.bytes_per_pixel * strip.bytes_per_pixel, strip.row_bytes);
    const size_t y = scatter(number, PLASTIC_32, strip.rows);
    const size_t pixel = scatter(number, PLASTIC_SQUARED_32, (strip.row_bytes - count) / strip.bytes_per_pixel + 1);
    rows.run(row_filter(filter, y), y, pixel * strip.bytes_per_pixel, count);
    walk(dispatch, rows.residuals(), count, counts);
}

Filter choose_filter(const Dispatch& dispatch, const Strip& strip, RowFilter& rows) {
    constexpr Filter CANDIDATES[] = {Filter::None, Filter::Sub, Filter::Up, Filter::Paeth};
    Filter best = Filter::None;
    uint64_t best_bits = ~uint64_t{0};
    for (Filter candidate : CANDIDATES) {
        SymbolCounts counts;
        for (size_t i = 0; i < FILTER_PIECES; i++) count_piece(dispatch, strip, candidate, i, rows, counts);
        uint32_t symbols[BLOCK_SYMBOLS];
        counts.total(symbols);
        const uint64_t bits = estimate_bits(symbols, counts.extra_bits());
        if (bits < best_bits) {
            best_bits = bits;
            best = candidate;
        }
    }
    return best;
}

// Makes the codes. Returns whether deflate is expected to be worth it.
bool make_codes(const Dispatch& dispatch, const Strip& strip, Filter filter, RowFilter& rows, BlockCodes& codes) {
    const bool exact = filtered_size(strip) <= EXACT_BYTES;
    SymbolCounts counts;
    if (exact) {
        for (size_t y = 0; y < strip.rows; y++) {
            rows.run(row_filter(filter, y), y, 0, strip.row_bytes);
            counts.literals(rows.filter_byte(), 1);
            walk(dispatch, rows.residuals(), strip.row_bytes, counts);
        }
    } else {
        for (size_t i = 0; i < CODE_PIECES; i++) count_piece(dispatch, strip, filter, i, rows, counts);
    }
    uint32_t symbols[BLOCK_SYMBOLS];
    counts.total(symbols);
    if (!exact) {
        for (uint32_t& symbol : symbols) symbol = symbol * COUNTED_WEIGHT + 1;
    }
    make_block_codes(symbols, codes);
    return counts.bits(codes) < 8 * counts.bytes();
}

// Where the pixels are not in a cache yet, the next row arrives while this one is encoded.
void prefetch(const uint8_t* bytes, size_t count) {
    for (size_t i = 0; i < count; i += 64) CNNVIZ_PREFETCH(bytes + i);
}

// Stored blocks of unfiltered rows.
EncodedStrip store(const Dispatch& dispatch, const Strip& strip, RowFilter& rows, uint8_t* out) {
    uint8_t* next = out;
    uint32_t adler = ADLER32_START;
    size_t bytes_left = filtered_size(strip);
    size_t block_left = 0;
    for (size_t y = 0; y < strip.rows; y++) {
        rows.run(Filter::None, y, 0, strip.row_bytes);
        adler = dispatch.adler32(adler, rows.filter_byte(), strip.row_bytes + 1);
        for (size_t i = 0; i < strip.row_bytes + 1;) {
            if (block_left == 0) {
                block_left = std::min(bytes_left, STORED_BLOCK_BYTES);
                const uint8_t low = static_cast<uint8_t>(block_left);
                const uint8_t high = static_cast<uint8_t>(block_left >> 8);
                const uint8_t head[5] = {0, low, high, static_cast<uint8_t>(~low), static_cast<uint8_t>(~high)};
                std::memcpy(next, head, sizeof head);
                next += sizeof head;
            }
            const size_t part = std::min(block_left, strip.row_bytes + 1 - i);
            std::memcpy(next, rows.filter_byte() + i, part);
            next += part;
            i += part;
            block_left -= part;
            bytes_left -= part;
        }
    }
    return {static_cast<size_t>(next - out), adler, filtered_size(strip)};
}

}  // namespace

size_t strip_bound(size_t rows, size_t row_bytes) {
    // A strip that has outgrown its stored size after some row is stored instead. One row can take this much more; its
    // matches are shorter than the literals they stand for.
    const size_t widest_row = ((row_bytes + 1) * MAX_LITERAL_LENGTH + 7) / 8;
    // End of block, empty block, and what a put may store ahead.
    constexpr size_t END_BYTES = 2 + 5 + 8;
    return CHUNK_OVERHEAD_BYTES + MAX_BLOCK_HEADER_BYTES + stored_size(rows * (row_bytes + 1)) + widest_row + END_BYTES;
}

EncodedStrip deflate_strip(const Dispatch& dispatch, const Strip& strip, uint8_t* out) {
    RowFilter rows(dispatch, strip);
    if (!rows.allocated()) return {0, ADLER32_START, 0};
    const Filter filter = choose_filter(dispatch, strip, rows);
    BlockCodes codes;
    if (!make_codes(dispatch, strip, filter, rows, codes)) return store(dispatch, strip, rows, out);

    BlockWriter block(dispatch, codes, {out});
    put_block_header(block.bits(), codes);
    const uint8_t* limit = out + stored_size(filtered_size(strip));
    uint32_t adler = ADLER32_START;
    // A row that repeats the two before it has the residuals of the last of them, and so its bits and its checksum.
    size_t repeats = 0;
    BitWriter row_start = block.bits();
    BitWriter row_end = row_start;
    uint32_t row_adler = ADLER32_START;
    for (size_t y = 0; y < strip.rows; y++) {
        const uint8_t* row = strip.pixels + y * strip.row_bytes;
        repeats = y > 0 && std::memcmp(row - strip.row_bytes, row, strip.row_bytes) == 0 ? repeats + 1 : 0;
        if (repeats < 2) {
            rows.run(row_filter(filter, y), y, 0, strip.row_bytes);
            adler = dispatch.adler32(adler, rows.filter_byte(), strip.row_bytes + 1);
        } else {
            if (repeats == 2) row_adler = dispatch.adler32(ADLER32_START, rows.filter_byte(), strip.row_bytes + 1);
            adler = adler32_combine(adler, row_adler, strip.row_bytes + 1);
        }
        if (y + 1 < strip.rows) prefetch(row + strip.row_bytes, strip.row_bytes);
        if (repeats < 2) {
            row_start = block.bits();
            block.symbol(*rows.filter_byte());
            walk(dispatch, rows.residuals(), strip.row_bytes, block);
            row_end = block.bits();
        } else {
            block.bits().repeat(row_start, row_end);
        }
        if (block.bits().next > limit) return store(dispatch, strip, rows, out);
    }
    block.symbol(END_OF_BLOCK);
    // An empty stored block: three zero bits, up to the next byte, then its length 0 and the complement of that.
    block.bits().put(0, 3);
    block.bits().align();
    block.bits().put(0xFFFF0000, 32);
    return {static_cast<size_t>(block.bits().next - out), adler, filtered_size(strip)};
}

EncodedStrip encode_strip(const Dispatch& dispatch, const Strip& strip, uint8_t* out) {
    EncodedStrip encoded = deflate_strip(dispatch, strip, out + CHUNK_HEAD_BYTES);
    if (encoded.size > 0) encoded.size = static_cast<size_t>(finish_chunk(dispatch, out, "IDAT", encoded.size) - out);
    return encoded;
}

}  // namespace cnnviz
