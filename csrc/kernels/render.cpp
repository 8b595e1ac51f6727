#include "kernels/render.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "buffer.h"
#include "workers.h"

namespace cnnviz {
namespace {

// Pixels for which it is worth to wake another thread, at least.
constexpr size_t BAND_PX = size_t{1} << 18;

// Bands for each thread, at most. Fewer keep threads waiting for the one that took the last band.
constexpr size_t BANDS_PER_THREAD = 16;

// Asks for values that will be read. The rows of a line lie a map apart, which processors do not foresee.
void prefetch(const float* values, size_t count) {
    constexpr size_t CACHE_LINE_FLOATS = 16;
    for (size_t x = 0; x < count; x += CACHE_LINE_FLOATS) CNNVIZ_PREFETCH(values + x);
}

// See Columns.
bool is_in_pairs(const Positions& cols, size_t begin) {
    if (cols.count % 2 != 0 || cols.count < 18) return false;
    const size_t last = cols.count / 2 - 1;
    for (size_t x = 0; x < cols.count; x++) {
        const bool is_between = x >= begin && x < begin + 2 * last;
        const size_t index = x < begin ? 0 : std::min((x - begin) / 2, last);
        const float fraction = is_between ? cols.fraction[begin + (x - begin) % 2] : 0;
        if (cols.index[x] != static_cast<int32_t>(index) || cols.fraction[x] != fraction) return false;
    }
    return true;
}

// The blocks of Columns, and their memory.
class ColumnBlocks {
  public:
    ColumnBlocks(const Positions& cols, size_t block)
        : fraction_(allocate_zeros<float>(cols.count + MOST_BLOCK_COLUMNS)),
          offset_(allocate_zeros<int32_t>(cols.count + MOST_BLOCK_COLUMNS)),
          first_(allocate_zeros<int32_t>(cols.count / std::max<size_t>(block, 1) + 1)) {
        if (!allocated()) return;
        std::copy(cols.fraction, cols.fraction + cols.count, fraction_.get());
        const size_t pairs_begin = is_in_pairs(cols, 0) ? 0 : 1;
        columns_ = {cols.index,  fraction_.get(), cols.count, block > 0, true, is_in_pairs(cols, pairs_begin),
                    pairs_begin, first_.get(),    offset_.get()};
        const size_t last = cols.count > block ? cols.count - block : 0;
        for (size_t b = 0; b * block < cols.count && columns_.in_blocks; b++) {
            const size_t begin = std::min(b * block, last);
            first_[b] = cols.index[begin];
            for (size_t x = begin; x < std::min(begin + block, cols.count); x++) {
                const int32_t offset = cols.index[x] - first_[b];
                columns_.in_blocks &= offset >= 0 && offset < static_cast<int32_t>(block);
                columns_.in_fours &= offset < 4;
                offset_[b * block + x - begin] = offset;
            }
        }
    }

    bool allocated() const { return fraction_ && offset_ && first_; }
    const Columns& columns() const { return columns_; }

  private:
    Buffer<float> fraction_;
    Buffer<int32_t> offset_;
    Buffer<int32_t> first_;
    Columns columns_{};
};

// A source row of all tiles of a grid row, enlarged along x: as wide as the sheet.
struct Line {
    float* values;
    bool has_nan;
};

class StripPainter {
  public:
    StripPainter(const Dispatch& dispatch, const Sheet& sheet)
        : loops_(dispatch.lines),
          sheet_(sheet),
          blocks_(sheet.cols, loops_.block_columns),
          scratch_(allocate_zeros<float>(needs_scratch(sheet.maps, false) ? tiles_in_a_row() * sheet.maps.width : 1)),
          spans_(allocate_zeros<Span>(tiles_in_a_row())),
          rows_(allocate_zeros<float>(tiles_in_a_row() * sheet.maps.width + ROW_PADDING)),
          lines_(allocate_zeros<float>(2 * line_size())),
          line_{lines_.get(), false},
          below_{lines_.get() + line_size(), false} {}

    bool allocated() const { return blocks_.allocated() && scratch_ && spans_ && rows_ && lines_; }

    void paint(size_t start, size_t stop, uint8_t* out) {
        const Grid& grid = sheet_.grid;
        for (size_t y = start; y < stop;) {
            uint8_t* target = out + (y - start) * sheet_.width;
            const size_t grid_row = y < grid.top ? 0 : (y - grid.top) / grid.step_y;
            const size_t t = y < grid.top ? grid.tile_h : (y - grid.top) % grid.step_y;
            if (t >= grid.tile_h || grid_row * grid.columns >= sheet_.maps.count) {
                std::memset(target, sheet_.paint.background, sheet_.width);
                y++;
                continue;
            }
            y += paint_run(grid_row, t, std::min(stop - y, grid.tile_h - t), target);
        }
    }

  private:
    size_t tiles_in_a_row() const { return std::min(sheet_.grid.columns, sheet_.maps.count); }
    // Entries of the palette from value 0 to value 1.
    float scale() const { return static_cast<float>(std::max<size_t>(sheet_.paint.levels, 2) - 1); }
    size_t line_size() const { return sheet_.width + LINE_PADDING; }

    // Writes the pixel rows from row t of the tiles on that lie between the same two source rows, `most` at most, and
    // returns their number.
    size_t paint_run(size_t grid_row, size_t t, size_t most, uint8_t* out) {
        const Positions& rows = sheet_.rows;
        const int32_t i = rows.index[t];
        size_t count = 1;
        while (count < most && rows.index[t + count] == i) count++;

        hold(grid_row, static_cast<size_t>(i));
        const float* fractions = rows.fraction + t;
        const bool all_alike = std::all_of(fractions, fractions + count, [](float f) { return f == 0; });
        const size_t drawn = all_alike ? 1 : count;
        // At the lower edge of the map every fraction is 0.
        const Line& below = static_cast<size_t>(i) + 1 < sheet_.maps.height ? below_ : line_;
        if (line_.has_nan || below.has_nan) {
            blend_rows_with_nan(line_.values, below.values, sheet_.width, fractions, drawn, scale(), sheet_.paint.bad,
                                out);
        } else {
            loops_.blend_rows(line_.values, below.values, sheet_.width, fractions, drawn, scale(), out);
        }
        for (size_t y = drawn; y < count; y++) std::memcpy(out + y * sheet_.width, out, sheet_.width);
        return count;
    }

    // Makes `line_` source row i of a grid row, and `below_` the next one.
    void hold(size_t grid_row, size_t i) {
        const bool same_tiles = grid_row == held_grid_row_;
        if (same_tiles && i == held_) return;
        if (!same_tiles) begin_tiles(grid_row);
        if (same_tiles && i == held_ + 1) {
            std::swap(line_, below_);
        } else {
            draw_line(i, line_);
        }
        if (i + 1 < sheet_.maps.height) draw_line(i + 1, below_);
        held_grid_row_ = grid_row;
        held_ = i;
    }

    void begin_tiles(size_t grid_row) {
        first_ = grid_row * sheet_.grid.columns;
        last_ = std::min(first_ + sheet_.grid.columns, sheet_.maps.count);
        for (size_t c = first_; c < last_; c++) {
            const Range range = {sheet_.low[c], sheet_.high[c]};
            // Of one level all values have entry 0, while the background is drawn with a scale of 1.
            spans_[c - first_] = sheet_.paint.levels == 1 ? span_of({0, 0}, 0) : span_of(range, sheet_.paint.flat);
        }
        clear_gaps(line_);
        clear_gaps(below_);
    }

    // Where no tile is, a line holds the value whose pixel is the background.
    void clear_gaps(const Line& line) {
        const Grid& grid = sheet_.grid;
        const float background = sheet_.paint.background / scale();
        size_t end = 0;
        for (size_t tile = 0; tile < last_ - first_; tile++) {
            const size_t begin = grid.left + tile * grid.step_x;
            std::fill(line.values + end, line.values + begin, background);
            end = begin + grid.tile_w;
        }
        std::fill(line.values + end, line.values + line_size(), background);
    }

    void draw_line(size_t i, Line& line) {
        const size_t width = sheet_.maps.width;
        const Block block = read_block(sheet_.maps, first_, last_, i, i + 1, scratch_.get());
        const Rows rows = {rows_.get(), last_ - first_, width};
        line.has_nan = loops_.normalize_rows(block, spans_.get(), rows);
        const bool next_is_there = block.values != scratch_.get() && i + 1 < sheet_.maps.height;
        for (size_t tile = 0; next_is_there && tile < rows.count; tile++) {
            prefetch(block.values + static_cast<ptrdiff_t>(tile) * block.step + sheet_.maps.step_y, width);
        }
        rows.values[rows.count * width] = 0;  // is read behind the last row, with a weight of 0
        const Grid& grid = sheet_.grid;
        loops_.enlarge_rows(blocks_.columns(), rows, line.has_nan, line.values + grid.left, grid.step_x);
        if (grid.tile_w < MOST_BLOCK_COLUMNS) clear_gaps(line);  // blocks are wider than tiles
    }

    static constexpr size_t NOTHING = ~size_t{0};

    const LineLoops& loops_;
    const Sheet& sheet_;
    ColumnBlocks blocks_;
    Buffer<float> scratch_;
    Buffer<Span> spans_;
    Buffer<float> rows_;
    Buffer<float> lines_;
    Line line_;
    Line below_;
    size_t first_ = 0;  // channels first_..last_-1 are in the grid row that is held
    size_t last_ = 0;
    size_t held_grid_row_ = NOTHING;
    size_t held_ = NOTHING;
};

}  // namespace

bool render_strip(const Dispatch& dispatch, const Sheet& sheet, size_t start, size_t stop, size_t threads,
                  uint8_t* out) {
    const size_t rows = stop - start;
    const size_t most_bands = threads < 2 ? 1 : BANDS_PER_THREAD * threads;
    const size_t bands = std::clamp<size_t>(rows * sheet.width / BAND_PX, 1, most_bands);
    const size_t band_rows = (rows + bands - 1) / bands;
    std::atomic<size_t> next{0};
    std::atomic<bool> enough_memory{true};
    run_in_threads(std::min(threads, bands), [&] {
        StripPainter painter(dispatch, sheet);
        if (!painter.allocated()) {
            enough_memory = false;
            return;
        }
        for (size_t y = next.fetch_add(band_rows); y < rows; y = next.fetch_add(band_rows)) {
            painter.paint(start + y, start + std::min(y + band_rows, rows), out + y * sheet.width);
        }
    });
    return enough_memory;
}

}  // namespace cnnviz
