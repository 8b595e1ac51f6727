#include "encoder/block.h"

#include <algorithm>
#include <array>

namespace cnnviz {
namespace {

struct LengthSymbol {
    uint16_t symbol;
    uint16_t base;
    uint8_t extra_bits;
};

// The table of section 3.2.5 by its rule: eight lengths of their own, then four symbols for each number of extra bits,
// 1 to 5.
constexpr std::array<LengthSymbol, MAX_MATCH + 1> make_length_symbols() {
    std::array<LengthSymbol, MAX_MATCH + 1> table{};
    uint16_t length = MIN_MATCH;
    for (uint16_t symbol = 257; symbol < 285; symbol++) {
        const uint8_t extra_bits = static_cast<uint8_t>(symbol < 265 ? 0 : (symbol - 261) / 4);
        const uint16_t base = length;
        for (; length < base + (1 << extra_bits) && length < MAX_MATCH; length++)
            table[length] = {symbol, base, extra_bits};
    }
    table[MAX_MATCH] = {285, MAX_MATCH, 0};
    return table;
}

constexpr std::array<LengthSymbol, MAX_MATCH + 1> LENGTH_SYMBOLS = make_length_symbols();

// The code lengths of a block are themselves coded: 0 to 15 as they are, 16 = the one before 3-6 times, 17 = 0 3-10
// times, 18 = 0 11-138 times.
constexpr size_t HEADER_SYMBOLS = 19;
constexpr unsigned MAX_HEADER_CODE_LENGTH = 7;
constexpr uint8_t HEADER_ORDER[HEADER_SYMBOLS] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

// One residual of so many beyond -16 to 15 makes it likely for a third of all blocks of 32 to hold one.
constexpr uint64_t FREQUENT = 64;

struct HeaderItem {
    uint8_t symbol;
    uint8_t extra;
    uint8_t extra_bits;
};

size_t make_header_items(const uint8_t* lengths, size_t count, HeaderItem* items) {
    size_t made = 0;
    for (size_t i = 0; i < count;) {
        size_t run = 1;
        while (i + run < count && lengths[i + run] == lengths[i]) run++;
        i += run;
        const uint8_t length = lengths[i - 1];
        if (length == 0) {
            for (; run >= 11; run -= std::min<size_t>(run, 138)) {
                items[made++] = {18, static_cast<uint8_t>(std::min<size_t>(run, 138) - 11), 7};
            }
            if (run >= 3) {
                items[made++] = {17, static_cast<uint8_t>(run - 3), 3};
                run = 0;
            }
        } else {
            items[made++] = {length, 0, 0};
            run--;
            for (; run >= 3; run -= std::min<size_t>(run, 6)) {
                items[made++] = {16, static_cast<uint8_t>(std::min<size_t>(run, 6) - 3), 2};
            }
        }
        for (; run > 0; run--) items[made++] = {length, 0, 0};
    }
    return made;
}

}  // namespace

void SymbolCounts::literals(const uint8_t* bytes, size_t count) {
    bytes_ += count;
    size_t i = 0;
    for (; i + PARTS <= count; i += PARTS) {
        for (size_t part = 0; part < PARTS; part++) literal_parts_[part][bytes[i + part]]++;
    }
    for (; i < count; i++) literal_parts_[0][bytes[i]]++;
}

void SymbolCounts::matches(size_t length, size_t times) {
    const LengthSymbol& symbol = LENGTH_SYMBOLS[length];
    lengths_[symbol.symbol - END_OF_BLOCK] += static_cast<uint32_t>(times);
    extra_bits_ += times * (symbol.extra_bits + 1u);
    bytes_ += times * length;
}

void SymbolCounts::total(uint32_t* symbols) const {
    for (size_t value = 0; value < 256; value++) {
        symbols[value] = 0;
        for (size_t part = 0; part < PARTS; part++) symbols[value] += literal_parts_[part][value];
    }
    std::copy(lengths_, lengths_ + BLOCK_SYMBOLS - END_OF_BLOCK, symbols + END_OF_BLOCK);
    symbols[END_OF_BLOCK] = 1;
}

uint64_t SymbolCounts::bits(const BlockCodes& codes) const {
    uint32_t symbols[BLOCK_SYMBOLS];
    total(symbols);
    uint64_t bits = extra_bits_;
    for (size_t i = 0; i < BLOCK_SYMBOLS; i++) bits += static_cast<uint64_t>(symbols[i]) * codes.lengths[i];
    return bits;
}

void make_block_codes(const uint32_t* symbols, BlockCodes& codes) {
    huffman_lengths(symbols, BLOCK_SYMBOLS, MAX_LITERAL_LENGTH, codes.lengths);
    huffman_codes(codes.lengths, BLOCK_SYMBOLS, codes.codes);
    uint64_t all = 0;
    uint64_t far = 0;
    for (size_t value = 0; value < 256; value++) {
        all += symbols[value];
        far += value >= 16 && value < 256 - 16 ? symbols[value] : 0;
        codes.literals.low[value] = static_cast<uint8_t>(codes.codes[value]);
        codes.literals.high[value] = static_cast<uint8_t>(codes.codes[value] >> 8);
        codes.literals.length[value] = codes.lengths[value];
        codes.literals.joined[value] = codes.codes[value] | static_cast<uint32_t>(codes.lengths[value]) << 16;
    }
    codes.literals.wide = far > all / FREQUENT;
    for (size_t length = MIN_MATCH; length <= MAX_MATCH; length++) {
        const LengthSymbol& symbol = LENGTH_SYMBOLS[length];
        const unsigned width = codes.lengths[symbol.symbol];
        codes.match_bits[length] = codes.codes[symbol.symbol] | static_cast<uint32_t>(length - symbol.base) << width;
        codes.match_widths[length] = static_cast<uint8_t>(width + symbol.extra_bits + 1);
    }
}

void put_block_header(BitWriter& writer, const BlockCodes& codes) {
    // The distance code, number 0, has length 1: the one length with which a code of a single symbol is allowed.
    uint8_t lengths[BLOCK_SYMBOLS + 1];
    std::copy(codes.lengths, codes.lengths + BLOCK_SYMBOLS, lengths);
    size_t used = BLOCK_SYMBOLS;
    while (lengths[used - 1] == 0) used--;
    lengths[used] = 1;
    HeaderItem items[BLOCK_SYMBOLS + 1];
    const size_t item_count = make_header_items(lengths, used + 1, items);

    uint32_t frequencies[HEADER_SYMBOLS] = {};
    for (size_t i = 0; i < item_count; i++) frequencies[items[i].symbol]++;
    uint8_t header_lengths[HEADER_SYMBOLS];
    uint16_t header_codes[HEADER_SYMBOLS];
    huffman_lengths(frequencies, HEADER_SYMBOLS, MAX_HEADER_CODE_LENGTH, header_lengths);
    huffman_codes(header_lengths, HEADER_SYMBOLS, header_codes);
    size_t header_used = HEADER_SYMBOLS;
    while (header_used > 4 && header_lengths[HEADER_ORDER[header_used - 1]] == 0) header_used--;

    constexpr unsigned DYNAMIC = 2;
    writer.put(DYNAMIC << 1, 3);
    writer.put(used - 257, 5);
    writer.put(0, 5);
    writer.put(header_used - 4, 4);
    for (size_t i = 0; i < header_used; i++) writer.put(header_lengths[HEADER_ORDER[i]], 3);
    for (size_t i = 0; i < item_count; i++) {
        writer.put(header_codes[items[i].symbol], header_lengths[items[i].symbol]);
        writer.put(items[i].extra, items[i].extra_bits);
    }
}

uint32_t log2_256(uint32_t x) {
    uint32_t whole = 0;
    for (uint32_t step = 16; step > 0; step /= 2) {
        if (x >> (whole + step) != 0) whole += step;
    }
    return whole * 256 + static_cast<uint32_t>(((static_cast<uint64_t>(x) << 8) >> whole) & 255);
}

uint64_t estimate_bits(const uint32_t* symbols, uint64_t extra_bits) {
    uint64_t total = 0;
    for (size_t i = 0; i < BLOCK_SYMBOLS; i++) total += symbols[i];
    const uint64_t log2_total = log2_256(static_cast<uint32_t>(total));
    uint64_t bits_256 = 0;
    for (size_t i = 0; i < BLOCK_SYMBOLS; i++) {
        if (symbols[i] > 0) bits_256 += symbols[i] * (log2_total - log2_256(symbols[i]));
    }
    return bits_256 / 256 + extra_bits;
}

}  // namespace cnnviz
