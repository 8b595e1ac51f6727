#include "sheets/manifest.h"

#include <charconv>
#include <cstring>

namespace cnnviz {
namespace {

// More than the keys of a record, with the integers and the flags between them.
constexpr size_t RECORD_BYTES = 320;
constexpr size_t INTEGER_BYTES = 20;

// Reads the values of a JSON array one after another; none of them holds a comma.
class Values {
  public:
    explicit Values(const Text& array) : at_(array.bytes + 1), end_(array.bytes + array.size - 1) {}

    // Of size 0 behind the last one.
    Text next() {
        if (at_ >= end_) return {end_, 0};
        const char* const first = at_;
        const void* const comma = std::memchr(at_, ',', static_cast<size_t>(end_ - at_));
        const char* const last = comma ? static_cast<const char*>(comma) : end_;
        at_ = last + 1;
        return {first, static_cast<size_t>(last - first)};
    }

  private:
    const char* at_;
    const char* end_;
};

class Writer {
  public:
    explicit Writer(char* out) : at_(out) {}

    template <size_t size>
    void put(const char (&literal)[size]) {
        std::memcpy(at_, literal, size - 1);
        at_ += size - 1;
    }

    void put(const Text& text) {
        std::memcpy(at_, text.bytes, text.size);
        at_ += text.size;
    }

    template <size_t size, class Value>
    void put(const char (&key)[size], const Value& value) {
        put(key);
        put(value);
    }

    void put(int64_t value) { at_ = std::to_chars(at_, at_ + INTEGER_BYTES, value).ptr; }

    void put_box(const Grid& grid, size_t position) {
        const size_t y = grid.top + position / grid.columns * grid.step_y;
        const size_t x = grid.left + position % grid.columns * grid.step_x;
        const size_t corners[] = {y, x, y + grid.tile_h, x + grid.tile_w};
        put(",\"box\":[");
        for (const size_t corner : corners) {
            put(static_cast<int64_t>(corner));
            put(",");
        }
        at_[-1] = ']';
    }

    void put_flags(bool flat, bool dead, bool nonfinite) {
        put(",\"flags\":[");
        if (flat) put("\"flat\",");
        if (dead) put("\"dead\",");
        if (nonfinite) put("\"nonfinite\",");
        if (flat || dead || nonfinite) at_--;
        put("]");
    }

    const char* at() const { return at_; }

  private:
    char* at_;
};

}  // namespace

size_t tiles_bound(const TileColumns& columns) {
    const size_t texts = columns.channels.size + columns.reductions.size + columns.scores.size;
    return columns.count * RECORD_BYTES + 2 * columns.numbers.size + texts;
}

size_t write_tiles(const TileColumns& columns, char* out) {
    Values channels(columns.channels);
    Values numbers(columns.numbers);
    Values reductions(columns.reductions);
    Values scores(columns.scores);
    Writer writer(out);
    writer.put("[");
    for (size_t i = 0; i < columns.count; i++) {
        const Text vmin = numbers.next();
        const Text vmax = numbers.next();
        const Text least = columns.own_ranges ? vmin : numbers.next();
        const Text greatest = columns.own_ranges ? vmax : numbers.next();
        const Text mean = numbers.next();
        const Text deviation = numbers.next();
        const Text zeros = numbers.next();
        const Text channel = channels.next();
        if (zeros.size == 0 || channel.size == 0) return 0;
        if (i > 0) writer.put(",");
        writer.put("{\"channel\":", channel);
        writer.put_box(columns.grid, i);
        writer.put(",\"vmin\":", vmin);
        writer.put(",\"vmax\":", vmax);
        writer.put(",\"min\":", least);
        writer.put(",\"max\":", greatest);
        writer.put(",\"mean\":", mean);
        writer.put(",\"std\":", deviation);
        writer.put(",\"zeros\":", zeros);
        writer.put(",\"nan\":", columns.nan[i]);
        writer.put(",\"inf\":", columns.infinite[i]);
        writer.put_flags(columns.flat[i], columns.dead[i], columns.nan[i] > 0 || columns.infinite[i] > 0);
        if (const Text reduction = reductions.next(); reduction.size > 0) writer.put(",\"reduce\":", reduction);
        if (const Text score = scores.next(); score.size > 0) writer.put(",\"rank\":", score);
        writer.put("}");
    }
    writer.put("]");
    return static_cast<size_t>(writer.at() - out);
}

}  // namespace cnnviz
