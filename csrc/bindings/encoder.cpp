// The encoder for Python: checks arguments, releases the GIL, calls the algorithms.

#include "bindings/bindings.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <vector>

#include "encoder/checksums.h"
#include "encoder/filter.h"
#include "encoder/png_file.h"
#include "encoder/strip.h"
#include "encoder/zlib_stream.h"
#include "system/files.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Bytes = Array<const uint8_t, 1>;
using Output = Array<uint8_t, 1>;
using Rows = Array<const uint8_t, 2>;
using Images = Array<const uint8_t, 3>;

// The length of a PNG chunk and the sides of an image are below 2^31.
constexpr size_t PNG_LIMIT = 0x7FFFFFFF;

}  // namespace

void check_strip(size_t rows, size_t row_bytes) {
    if (rows == 0 || row_bytes == 0) refuse("rows and row_bytes must be at least 1, got 0.");
    if (row_bytes >= PNG_LIMIT || rows > PNG_LIMIT / (row_bytes + 1) ||
        cnnviz::strip_bound(rows, row_bytes) > PNG_LIMIT) {
        refuse("rows * row_bytes must fit one PNG chunk (2^31 bytes), got " + std::to_string(rows) + " rows of " +
               std::to_string(row_bytes) + ". Use fewer rows a strip.");
    }
}

namespace {

size_t strip_bound(size_t rows, size_t row_bytes) {
    check_strip(rows, row_bytes);
    return cnnviz::strip_bound(rows, row_bytes);
}

nb::tuple encode_strip(const Rows& pixels, size_t bytes_per_pixel, const Output& out) {
    const cnnviz::Strip strip = {pixels.data(), pixels.shape(0), pixels.shape(1), bytes_per_pixel};
    const size_t bound = strip_bound(strip.rows, strip.row_bytes);
    if (bytes_per_pixel < 1 || bytes_per_pixel > 8 || strip.row_bytes % bytes_per_pixel != 0) {
        refuse("bytes_per_pixel must be 1 to 8 and divide the " + std::to_string(strip.row_bytes) +
               " bytes of a row, got " + std::to_string(bytes_per_pixel) + ".");
    }
    if (out.shape(0) < bound) {
        refuse("out must hold strip_bound(rows, row_bytes) = " + std::to_string(bound) + " bytes, got " +
               std::to_string(out.shape(0)) + ".");
    }
    const cnnviz::Dispatch& dispatch = active_level();
    cnnviz::EncodedStrip encoded;
    {
        nb::gil_scoped_release released;
        encoded = cnnviz::encode_strip(dispatch, strip, out.data());
    }
    if (encoded.size == 0) throw std::bad_alloc();
    return nb::make_tuple(encoded.size, encoded.adler, encoded.filtered_bytes);
}

const char* path_of(const nb::bytes& path) {
    if (std::strlen(path.c_str()) != path.size()) refuse("paths must not contain zero bytes.");
    return path.c_str();
}

nb::tuple write_png_files(const Images& pixels, const std::optional<nb::bytes>& palette,
                          const std::vector<nb::bytes>& paths) {
    const cnnviz::ImageBatch batch = {pixels.data(),
                                      pixels.shape(0),
                                      pixels.shape(1),
                                      pixels.shape(2),
                                      palette ? reinterpret_cast<const uint8_t*>(palette->c_str()) : nullptr,
                                      palette ? palette->size() / 3 : 0};
    if (palette && (palette->size() % 3 != 0 || batch.palette_size < 1 || batch.palette_size > 256)) {
        refuse("palette must be 3 to 768 bytes, red, green and blue of each entry, got " +
               std::to_string(palette->size()) + ".");
    }
    if (batch.height > PNG_LIMIT)
        refuse("pixels must be at most 2^31 - 1 high, got " + std::to_string(batch.height) + ".");
    strip_bound(batch.height > 0 ? 1 : 0, batch.width);
    if (paths.size() != batch.count) {
        refuse("paths must be one for each of the " + std::to_string(batch.count) + " images, got " +
               std::to_string(paths.size()) + ".");
    }
    std::vector<const char*> names;
    for (const nb::bytes& path : paths) names.push_back(path_of(path));
    const cnnviz::Dispatch& dispatch = active_level();
    cnnviz::WrittenFiles written;
    {
        nb::gil_scoped_release released;
        written = cnnviz::write_png_files(dispatch, batch, names.data());
    }
    return nb::make_tuple(written.count, written.error);
}

// The most bytes whose symbols still add up to less than 2^32.
constexpr size_t ZLIB_LIMIT = 0x7FFFFFFF;

nb::bytes zlib_compress(const nb::sequence& parts) {
    std::vector<Bytes> held;
    std::vector<cnnviz::Contents> contents;
    size_t count = 0;
    for (const nb::handle part : parts) {
        Bytes bytes;
        if (!nb::try_cast(part, bytes, false)) throw nb::type_error("parts must be (n,) uint8 or bytes.");
        held.push_back(bytes);
        contents.push_back({bytes.data(), bytes.shape(0)});
        count += bytes.shape(0);
    }
    if (count > ZLIB_LIMIT) refuse("parts must hold at most 2^31 - 1 bytes, got " + std::to_string(count) + ".");
    const std::unique_ptr<uint8_t[]> out(new uint8_t[cnnviz::zlib_stream_bound(contents)]);
    const cnnviz::Dispatch& dispatch = active_level();
    size_t size;
    {
        nb::gil_scoped_release released;
        size = cnnviz::put_zlib_stream(dispatch, contents, out.get());
    }
    return nb::bytes(out.get(), size);
}

void filter_row(unsigned filter, const Bytes& row, const Bytes& above, size_t bytes_per_pixel,
                const Output& residuals) {
    if (filter > 4 || filter == 3) refuse("filter must be 0, 1, 2 or 4, got " + std::to_string(filter) + ".");
    if (bytes_per_pixel == 0) refuse("bytes_per_pixel must be at least 1, got 0.");
    if (above.shape(0) != row.shape(0) || residuals.shape(0) != row.shape(0)) {
        refuse("row, above and residuals must have the same length, got " + std::to_string(row.shape(0)) + ", " +
               std::to_string(above.shape(0)) + " and " + std::to_string(residuals.shape(0)) + ".");
    }
    active_level().filter_row(static_cast<cnnviz::Filter>(filter), row.data(), above.data(), row.shape(0),
                                      bytes_per_pixel, residuals.data());
}

uint32_t adler32(const Bytes& bytes, uint32_t adler) {
    const cnnviz::Dispatch& dispatch = active_level();
    nb::gil_scoped_release released;
    return dispatch.adler32(adler, bytes.data(), bytes.shape(0));
}

uint32_t crc32(const Bytes& bytes, uint32_t crc) {
    const cnnviz::Dispatch& dispatch = active_level();
    nb::gil_scoped_release released;
    return dispatch.crc32(crc, bytes.data(), bytes.shape(0));
}

}  // namespace

void bind_encoder(nb::module_& m) {
    m.def("encode_strip", &encode_strip, "pixels"_a.noconvert(), "bytes_per_pixel"_a, "out"_a.noconvert(),
          "Deflate a strip of rows into one complete IDAT chunk.");
    m.def("strip_bound", &strip_bound, "rows"_a, "row_bytes"_a,
          "Return the bytes that `out` of encode_strip must have.");
    m.def("write_png_files", &write_png_files, "pixels"_a.noconvert(), "palette"_a.none(), "paths"_a,
          "Encode each image and write it to its path.");
    m.def(
        "move_file",
        [](const nb::bytes& from, const nb::bytes& to) {
            const char* const source = path_of(from);
            const char* const target = path_of(to);
            nb::gil_scoped_release released;
            return cnnviz::move_file(source, target);
        },
        "source"_a, "target"_a, "Move a file to a name in its folder.");
    m.def("adler32", &adler32, "data"_a.noconvert(), "adler"_a = cnnviz::ADLER32_START,
          "Return the Adler-32 checksum.");
    m.def("adler32_combine", &cnnviz::adler32_combine, "adler1"_a, "adler2"_a, "len2"_a,
          "Return the Adler-32 checksum of two byte strings joined.");
    m.def("crc32", &crc32, "data"_a.noconvert(), "crc"_a = cnnviz::CRC32_START, "Return the CRC-32 checksum.");
    m.def("zlib_compress", &zlib_compress, "parts"_a, "Deflate bytes into one zlib stream.");
    m.def("filter_row", &filter_row, "filter"_a, "row"_a.noconvert(), "above"_a.noconvert(), "bytes_per_pixel"_a,
          "residuals"_a.noconvert(), "Write the residuals of one row.");
}
