// The kernels for Python: checks arguments, releases the GIL, calls the algorithms. What is checked here is that no
// call reads or writes beyond an array; what the values mean is the callers' concern.

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <new>
#include <optional>
#include <tuple>
#include <vector>

#include "bindings/bindings.h"
#include "buffer.h"
#include "kernels/entries.h"
#include "kernels/measure.h"
#include "kernels/overlay.h"
#include "kernels/render.h"
#include "kernels/shrink.h"
#include "kernels/sketch.h"
#include "kernels/values.h"
#include "sheets/manifest.h"
#include "sheets/sheet_file.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using AnyMaps = nb::ndarray<nb::ro, nb::ndim<3>, nb::device::cpu>;
using AnyValues = nb::ndarray<nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = Array<const float, 1>;
using Indices = Array<const int32_t, 1>;

// (grid columns, tile_h, tile_w, step_y, step_x, top, left)
using GridNumbers = std::array<size_t, 7>;
// (levels, background, bad)
using PaintEntries = std::array<size_t, 3>;

// Sides and distances stay far below what a product of two could overflow.
constexpr size_t LONGEST = 0x7FFFFFFF;

std::string number(size_t value) { return std::to_string(value); }

cnnviz::Dtype dtype_of(const nb::dlpack::dtype& dtype) {
    const auto is = [&dtype](nb::dlpack::dtype_code code, uint8_t bits) {
        return dtype.code == static_cast<uint8_t>(code) && dtype.bits == bits && dtype.lanes == 1;
    };
    if (is(nb::dlpack::dtype_code::Float, 32)) return cnnviz::Dtype::Float32;
    if (is(nb::dlpack::dtype_code::Float, 16)) return cnnviz::Dtype::Float16;
    if (is(nb::dlpack::dtype_code::Bfloat, 16)) return cnnviz::Dtype::BFloat16;
    if (is(nb::dlpack::dtype_code::UInt, 8)) return cnnviz::Dtype::UInt8;
    throw nb::type_error("maps must be float32, float16, bfloat16 or uint8.");
}

cnnviz::Maps maps_of(const AnyMaps& maps) {
    for (size_t axis = 0; axis < 3; axis++) {
        if (maps.shape(axis) == 0) refuse("maps must have no axis of length 0.");
        if (maps.shape(axis) > LONGEST) refuse("maps must be shorter than 2^31 along each axis.");
    }
    return {maps.data(),     dtype_of(maps.dtype()), maps.shape(0),  maps.shape(1),
            maps.shape(2), maps.stride(0),         maps.stride(1), maps.stride(2)};
}

cnnviz::Grid grid_of(const GridNumbers& numbers, size_t count, size_t stop, size_t width) {
    for (const size_t value : numbers) {
        if (value > LONGEST) refuse("grid must hold numbers below 2^31, got " + number(value) + ".");
    }
    const cnnviz::Grid grid = {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6]};
    if (grid.columns == 0 || grid.tile_h == 0 || grid.tile_w == 0) refuse("grid must have tiles of at least 1 px.");
    if (grid.step_y < grid.tile_h || grid.step_x < grid.tile_w) refuse("grid must not lay tiles over one another.");
    const size_t in_a_row = std::min(grid.columns, count);
    if (stop > LONGEST || width > LONGEST || grid.left + (in_a_row - 1) * grid.step_x + grid.tile_w > width) {
        refuse("grid must fit into the sheet of " + number(width) + " px in width.");
    }
    return grid;
}

cnnviz::Positions positions_of(const char* name, const Indices& index, const Floats& fraction, size_t size,
                               size_t map_size) {
    if (index.shape(0) != size || fraction.shape(0) != size) {
        refuse(std::string(name) + " must have " + number(size) + " positions, got " + number(index.shape(0)) +
               " and " + number(fraction.shape(0)) + ".");
    }
    for (size_t i = 0; i < size; i++) {
        if (index.data()[i] < 0 || static_cast<size_t>(index.data()[i]) >= map_size) {
            refuse(std::string(name) + " must lie within the maps' " + number(map_size) + ", got " +
                   std::to_string(index.data()[i]) + ".");
        }
    }
    return {index.data(), fraction.data(), size};
}

void check_length(const char* name, size_t found, size_t wanted) {
    if (found != wanted) {
        refuse(std::string(name) + " must have length " + number(wanted) + ", got " + number(found) + ".");
    }
}

// What render_strip and write_sheet take of a sheet, checked. The arrays must outlive it.
cnnviz::Sheet sheet_of(const AnyMaps& maps, const Floats& vmin, const Floats& vmax, const Indices& row_index,
                       const Floats& row_fraction, const Indices& col_index, const Floats& col_fraction,
                       const GridNumbers& grid, const PaintEntries& entries, float flat, size_t stop, size_t width) {
    cnnviz::Sheet sheet{};
    sheet.maps = maps_of(maps);
    check_length("vmin", vmin.shape(0), sheet.maps.count);
    check_length("vmax", vmax.shape(0), sheet.maps.count);
    if (entries[0] < 1 || entries[0] > 256 || entries[1] > 255 || entries[2] > 255) {
        refuse("paint must have 1 to 256 levels and entries of at most 255.");
    }
    sheet.low = vmin.data();
    sheet.high = vmax.data();
    sheet.width = width;
    sheet.grid = grid_of(grid, sheet.maps.count, stop, width);
    sheet.rows = positions_of("rows", row_index, row_fraction, sheet.grid.tile_h, sheet.maps.height);
    sheet.cols = positions_of("cols", col_index, col_fraction, sheet.grid.tile_w, sheet.maps.width);
    sheet.paint = {entries[0], flat, static_cast<uint8_t>(entries[1]), static_cast<uint8_t>(entries[2])};
    return sheet;
}

void render_strip(const AnyMaps& maps, const Floats& vmin, const Floats& vmax, const Indices& row_index,
                  const Floats& row_fraction, const Indices& col_index, const Floats& col_fraction,
                  const GridNumbers& grid, const PaintEntries& entries, float flat, size_t start,
                  const Array<uint8_t, 2>& out, size_t threads) {
    const size_t stop = start + out.shape(0);
    const cnnviz::Sheet sheet = sheet_of(maps, vmin, vmax, row_index, row_fraction, col_index, col_fraction, grid,
                                         entries, flat, stop, out.shape(1));
    const cnnviz::Dispatch& dispatch = active_level();
    bool done = false;
    {
        nb::gil_scoped_release released;
        done = cnnviz::render_strip(dispatch, sheet, start, stop, threads, out.data());
    }
    if (!done) throw std::bad_alloc();
}

cnnviz::Overlay overlay_of(const Array<const uint8_t, 2>& colors, const Array<const uint16_t, 1>& weights,
                           const Array<const uint8_t, 3>& photo, const cnnviz::Grid& grid, size_t count, size_t width) {
    check_length("colors", colors.shape(0) * colors.shape(1), 256 * 3);
    check_length("weights", weights.shape(0), 256);
    check_length("rows of photo", photo.shape(0), grid.tile_h);
    check_length("columns of photo", photo.shape(1), grid.tile_w);
    check_length("a pixel of photo", photo.shape(2), 3);
    if (std::any_of(weights.data(), weights.data() + 256, [](uint16_t weight) { return weight > 256; })) {
        refuse("weights must be at most 256.");
    }
    return {colors.data(), weights.data(), photo.data(), grid, count, width};
}

void blend_strip(const Array<const uint8_t, 2>& index, const Array<const uint8_t, 2>& colors,
                 const Array<const uint16_t, 1>& weights, const Array<const uint8_t, 3>& photo,
                 const GridNumbers& grid, size_t count, size_t start, const Array<uint8_t, 3>& out) {
    const size_t stop = start + index.shape(0);
    const size_t width = index.shape(1);
    const cnnviz::Overlay overlay = overlay_of(
        colors, weights, photo, grid_of(grid, std::max<size_t>(count, 1), stop, width), count, width);
    check_length("out", out.shape(0) * out.shape(1) * out.shape(2), 3 * index.shape(0) * width);
    bool done = false;
    {
        nb::gil_scoped_release released;
        done = cnnviz::blend_strip(overlay, index.data(), start, stop, out.data());
    }
    if (!done) throw std::bad_alloc();
}

// (y, x, entries) of a block of text.
using PlacedBlock = std::tuple<size_t, size_t, Array<const uint8_t, 2>>;
using OverlayArrays = std::tuple<Array<const uint16_t, 1>, Array<const uint8_t, 3>>;

nb::tuple write_sheet(int file, size_t height, size_t width, const AnyMaps& maps, const Floats& vmin,
                      const Floats& vmax, const Indices& row_index, const Floats& row_fraction,
                      const Indices& col_index, const Floats& col_fraction, const GridNumbers& grid,
                      const PaintEntries& entries, float flat, const Array<const uint8_t, 2>& colors,
                      const std::optional<OverlayArrays>& photo, const std::vector<PlacedBlock>& blocks,
                      size_t strip_rows, size_t threads, const nb::object& meanwhile) {
    cnnviz::SheetPicture picture{};
    picture.sheet = sheet_of(maps, vmin, vmax, row_index, row_fraction, col_index, col_fraction, grid, entries, flat,
                             height, width);
    picture.height = height;
    check_length("colors", colors.shape(0) * colors.shape(1), 256 * 3);
    picture.colors = colors.data();
    cnnviz::Overlay overlay{};
    if (photo) {
        overlay = overlay_of(colors, std::get<0>(*photo), std::get<1>(*photo), picture.sheet.grid,
                             picture.sheet.maps.count, width);
        picture.overlay = &overlay;
    }
    for (const auto& [y, x, plane] : blocks) {
        if (y > height || plane.shape(0) > height - y || x > width || plane.shape(1) > width - x) {
            refuse("blocks must lie within the sheet.");
        }
        picture.blocks.push_back({y, x, plane.shape(0), plane.shape(1), plane.data()});
    }
    if (height == 0 || strip_rows == 0) refuse("height and strip_rows must be at least 1, got 0.");
    check_strip(std::min(strip_rows, height), width * (photo ? 3 : 1));
    const cnnviz::Dispatch& dispatch = active_level();
    const auto done_meanwhile = [&meanwhile] {
        if (meanwhile.is_none()) return true;
        nb::gil_scoped_acquire acquired;
        PyObject* const result = PyObject_CallNoArgs(meanwhile.ptr());
        Py_XDECREF(result);
        return result != nullptr;
    };
    const auto interrupted = [] {
        nb::gil_scoped_acquire acquired;
        return PyErr_CheckSignals() != 0;
    };
    cnnviz::WrittenSheet written{};
    {
        nb::gil_scoped_release released;
        written = cnnviz::write_sheet(dispatch, picture, strip_rows, threads, file, done_meanwhile, interrupted);
    }
    if (written.stopped) throw nb::python_error();
    if (written.error != 0) {
        errno = written.error;
        PyErr_SetFromErrno(written.error == ENOMEM ? PyExc_MemoryError : PyExc_OSError);
        throw nb::python_error();
    }
    return nb::make_tuple(written.adler, written.seconds.render, written.seconds.encode, written.seconds.write);
}

void channel_range(const AnyMaps& maps, const Array<float, 1>& vmin, const Array<float, 1>& vmax,
                   const std::optional<Array<int64_t, 1>>& nonfinite) {
    const cnnviz::Maps read = maps_of(maps);
    check_length("vmin", vmin.shape(0), read.count);
    check_length("vmax", vmax.shape(0), read.count);
    if (nonfinite) check_length("nonfinite", nonfinite->shape(0), read.count);
    const cnnviz::Dispatch& dispatch = active_level();
    bool done = false;
    {
        nb::gil_scoped_release released;
        done = cnnviz::channel_range(dispatch, read, vmin.data(), vmax.data(), nonfinite ? nonfinite->data() : nullptr);
    }
    if (!done) throw std::bad_alloc();
}

void channel_measures(const AnyMaps& maps, size_t threads, const Array<float, 1>& vmin, const Array<float, 1>& vmax,
                      const Array<double, 1>& mean, const Array<double, 1>& std, const Array<double, 1>& zeros,
                      const Array<int64_t, 1>& nan, const Array<int64_t, 1>& inf) {
    const cnnviz::Maps read = maps_of(maps);
    for (const size_t length : {vmin.shape(0), vmax.shape(0), mean.shape(0), std.shape(0), zeros.shape(0),
                                nan.shape(0), inf.shape(0)}) {
        check_length("each result", length, read.count);
    }
    const cnnviz::Measures measures = {vmin.data(),  vmax.data(), mean.data(), std.data(),
                                       zeros.data(), nan.data(),  inf.data()};
    const cnnviz::Dispatch& dispatch = active_level();
    bool done = false;
    {
        nb::gil_scoped_release released;
        done = cnnviz::channel_measures(dispatch, read, threads, measures);
    }
    if (!done) throw std::bad_alloc();
}

void shrink(const AnyMaps& maps, const Floats& vmin, const Floats& vmax, const Array<float, 3>& out) {
    const cnnviz::Maps read = maps_of(maps);
    check_length("vmin", vmin.shape(0), read.count);
    check_length("vmax", vmax.shape(0), read.count);
    check_length("out", out.shape(0), read.count);
    const size_t height = out.shape(1);
    const size_t width = out.shape(2);
    if (height == 0 || width == 0 || height > read.height || width > read.width) {
        refuse("out must have sides of at least 1 and at most " + number(read.height) + " x " + number(read.width) +
               ", got " + number(height) + " x " + number(width) + ".");
    }
    const cnnviz::Dispatch& dispatch = active_level();
    bool done = false;
    {
        nb::gil_scoped_release released;
        done = cnnviz::shrink(dispatch, read, vmin.data(), vmax.data(), height, width, out.data());
    }
    if (!done) throw std::bad_alloc();
}

cnnviz::Text text_of(const nb::bytes& json) {
    if (json.size() < 2) refuse("a text must be a JSON array.");
    return {json.c_str(), json.size()};
}

nb::bytes tile_records(const GridNumbers& numbers_of_grid, const nb::bytes& channels, bool own_ranges,
                       const nb::bytes& numbers, const Array<const int64_t, 1>& nan,
                       const Array<const int64_t, 1>& inf, const Array<const bool, 1>& flat,
                       const Array<const bool, 1>& dead, const nb::bytes& reductions, const nb::bytes& scores) {
    const size_t count = nan.shape(0);
    for (const size_t length : {inf.shape(0), flat.shape(0), dead.shape(0)}) check_length("each column", length, count);
    cnnviz::TileColumns columns{};
    columns.count = count;
    columns.grid = grid_of(numbers_of_grid, count, LONGEST, LONGEST);
    columns.channels = text_of(channels);
    columns.own_ranges = own_ranges;
    columns.numbers = text_of(numbers);
    columns.nan = nan.data();
    columns.infinite = inf.data();
    columns.flat = flat.data();
    columns.dead = dead.data();
    columns.reductions = text_of(reductions);
    columns.scores = text_of(scores);
    const auto records = cnnviz::allocate<char>(cnnviz::tiles_bound(columns));
    if (!records) throw std::bad_alloc();
    const size_t size = cnnviz::write_tiles(columns, records.get());
    if (size == 0) refuse("channels and numbers must be those of " + number(count) + " tiles.");
    return nb::bytes(records.get(), size);
}

// Calls do(pointer) with values of float32 or float64.
template <class Do>
auto with_values(const AnyValues& values, Do&& run) {
    if (values.dtype() == nb::dtype<float>()) return run(static_cast<const float*>(values.data()));
    if (values.dtype() == nb::dtype<double>()) return run(static_cast<const double*>(values.data()));
    throw nb::type_error("values must be float32 or float64.");
}

nb::tuple survey(const AnyValues& values) {
    const cnnviz::Survey found = with_values(values, [&values](const auto* data) {
        nb::gil_scoped_release released;
        return cnnviz::survey(data, values.shape(0));
    });
    return nb::make_tuple(found.least, found.greatest, found.total, found.zeros, found.nan, found.infinite);
}

double spread(const AnyValues& values, double mean, const Array<const double, 1>& edges,
              const Array<int64_t, 1>& counts) {
    if (edges.shape(0) < 2) refuse("edges must be at least 2.");
    const size_t bins = edges.shape(0) - 1;
    check_length("counts", counts.shape(0), bins);
    if (!(edges.data()[0] < edges.data()[bins])) refuse("edges must ascend.");
    return with_values(values, [&](const auto* data) {
        nb::gil_scoped_release released;
        return cnnviz::spread(data, values.shape(0), mean, edges.data(), bins, counts.data());
    });
}

void count_values(const Array<const float, 2>& values, const Array<const int64_t, 1>& pages,
                  const Array<int64_t, 2>& counts, const Array<bool, 1>& missing) {
    check_length("pages", pages.shape(0), cnnviz::OCTAVES);
    check_length("missing", missing.shape(0), cnnviz::OCTAVES);
    check_length("counts", counts.shape(0), values.shape(0));
    for (size_t octave = 0; octave < cnnviz::OCTAVES; octave++) {
        const int64_t page = pages.data()[octave];
        if (page >= 0 && static_cast<size_t>(page) + cnnviz::BUCKETS > counts.shape(1)) {
            refuse("pages must lie within the " + number(counts.shape(1)) + " columns of counts.");
        }
    }
    nb::gil_scoped_release released;
    cnnviz::count_values(values.data(), values.shape(0), values.shape(1), pages.data(), counts.shape(1), counts.data(),
                         missing.data());
}

void gather_nonzero(const Array<const int64_t, 2>& counts, const Array<const int64_t, 1>& columns,
                    const Array<int64_t, 1>& place, const Array<int64_t, 1>& count) {
    for (size_t k = 0; k < columns.shape(0); k++) {
        const int64_t column = columns.data()[k];
        if (column < 0 || static_cast<size_t>(column) >= counts.shape(1)) {
            refuse("columns must be columns of counts, got " + std::to_string(column) + ".");
        }
    }
    check_length("count", count.shape(0), place.shape(0));
    nb::gil_scoped_release released;
    cnnviz::gather_nonzero(counts.data(), counts.shape(0), counts.shape(1), columns.data(), columns.shape(0),
                           place.shape(0), place.data(), count.data());
}

using Scores = Array<float, 2>;
using Digests = Array<int64_t, 2>;
using Places = Array<int32_t, 2>;

cnnviz::EntryLists lists_of(const Scores& scores, const Digests& digests, const Places& positions, bool drawn) {
    const size_t channels = scores.shape(0);
    const size_t size = scores.shape(1);
    check_length("digests", digests.shape(0), channels);
    check_length("a row of digests", digests.shape(1), size);
    check_length("positions", positions.shape(0), channels);
    check_length("a row of positions", positions.shape(1), size);
    if (size == 0) refuse("lists must have room for at least 1 entry, got 0.");
    return {scores.data(), digests.data(), positions.data(), channels, size, drawn};
}

void enter(const Scores& scores, const Digests& digests, const Places& positions, bool drawn,
           const Array<const float, 2>& new_scores, const Array<const int64_t, 1>& new_digests,
           const Array<bool, 1>& touched) {
    const cnnviz::EntryLists lists = lists_of(scores, digests, positions, drawn);
    const size_t images = new_scores.shape(0);
    if (images >= LONGEST) refuse("new_scores must be of fewer than 2^31 images.");
    check_length("a row of new_scores", new_scores.shape(1), lists.channels);
    check_length("new_digests", new_digests.shape(0), images);
    check_length("touched", touched.shape(0), lists.channels);
    nb::gil_scoped_release released;
    cnnviz::enter(lists, new_scores.data(), new_digests.data(), images, touched.data());
}

void merge_entries(const Scores& scores, const Digests& digests, const Places& positions, bool drawn,
                   const Scores& other_scores, const Digests& other_digests, const Places& other_positions) {
    const cnnviz::EntryLists lists = lists_of(scores, digests, positions, drawn);
    const cnnviz::EntryLists others = lists_of(other_scores, other_digests, other_positions, drawn);
    check_length("other_scores", others.channels, lists.channels);
    nb::gil_scoped_release released;
    cnnviz::merge(lists, others);
}

void first_places(const AnyMaps& maps, const Array<const int64_t, 1>& channel, const Floats& values,
                  const Array<int64_t, 1>& places) {
    const cnnviz::Maps read = maps_of(maps);
    const size_t count = channel.shape(0);
    check_length("values", values.shape(0), count);
    check_length("places", places.shape(0), count);
    for (size_t i = 0; i < count; i++) {
        if (channel.data()[i] < 0 || static_cast<size_t>(channel.data()[i]) >= read.count) {
            refuse("channel must lie within the maps' " + number(read.count) + ", got " +
                   std::to_string(channel.data()[i]) + ".");
        }
    }
    bool done = false;
    {
        nb::gil_scoped_release released;
        done = cnnviz::first_places(read, channel.data(), values.data(), count, places.data());
    }
    if (!done) throw std::bad_alloc();
}

}  // namespace

void bind_kernels(nb::module_& m) {
    m.def("render_strip", &render_strip, "maps"_a, "vmin"_a, "vmax"_a, "row_index"_a, "row_fraction"_a, "col_index"_a,
          "col_fraction"_a, "grid"_a, "paint"_a, "flat"_a, "start"_a, "out"_a.noconvert(),
          "threads"_a = 1, "Draw a band of rows of a sheet.");
    m.def("blend_strip", &blend_strip, "index"_a, "colors"_a, "weights"_a, "photo"_a, "grid"_a, "count"_a, "start"_a,
          "out"_a.noconvert(), "Colour a band of rows of a sheet over a photo.");
    m.def("write_sheet", &write_sheet, "file"_a, "height"_a, "width"_a, "maps"_a, "vmin"_a, "vmax"_a, "row_index"_a,
          "row_fraction"_a, "col_index"_a, "col_fraction"_a, "grid"_a, "paint"_a, "flat"_a, "colors"_a,
          "photo"_a.none(), "blocks"_a, "strip_rows"_a, "threads"_a, "meanwhile"_a = nb::none(),
          "Draw, encode and write all strips of a sheet.");
    m.def("channel_range", &channel_range, "maps"_a, "vmin"_a.noconvert(), "vmax"_a.noconvert(),
          "nonfinite"_a.noconvert() = nb::none(), "Find the least and the greatest finite value of each channel.");
    m.def("enter_entries", &enter, "scores"_a.noconvert(), "digests"_a.noconvert(), "positions"_a.noconvert(), "drawn"_a,
          "new_scores"_a, "new_digests"_a, "touched"_a.noconvert(), "Enter a batch into lists of entries.");
    m.def("merge_entries", &merge_entries, "scores"_a.noconvert(), "digests"_a.noconvert(), "positions"_a.noconvert(),
          "drawn"_a, "other_scores"_a, "other_digests"_a, "other_positions"_a, "Merge lists of entries.");
    m.def("first_places", &first_places, "maps"_a, "channel"_a, "values"_a, "places"_a.noconvert(),
          "Find where some maps first have a value.");
    m.def("channel_measures", &channel_measures, "maps"_a, "threads"_a, "vmin"_a.noconvert(), "vmax"_a.noconvert(),
          "mean"_a.noconvert(), "std"_a.noconvert(), "zeros"_a.noconvert(), "nan"_a.noconvert(), "inf"_a.noconvert(),
          "Measure what each channel holds.");
    m.def("tile_records", &tile_records, "grid"_a, "channels"_a, "own_ranges"_a, "numbers"_a, "nan"_a, "inf"_a, "flat"_a,
          "dead"_a, "reductions"_a, "scores"_a, "Write the tiles of a manifest as JSON.");
    m.def("shrink", &shrink, "maps"_a, "vmin"_a, "vmax"_a, "out"_a.noconvert(), "Make maps smaller, without aliasing.");
    m.def("survey", &survey, "values"_a, "Find what one pass over values shows.");
    m.def("spread", &spread, "values"_a, "mean"_a, "edges"_a, "counts"_a.noconvert(),
          "Measure how values lie about their mean and in bins.");
    m.def("count_values", &count_values, "values"_a, "pages"_a, "counts"_a.noconvert(), "missing"_a.noconvert(),
          "Count each channel's values in buckets.");
    m.def("gather_nonzero", &gather_nonzero, "counts"_a, "columns"_a, "place"_a.noconvert(), "count"_a.noconvert(),
          "Gather the counts that are not 0.");
}
