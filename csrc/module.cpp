// The only file that sees Python: checks arguments, releases the GIL, calls the algorithms.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "dispatch.h"
#include "encoder/checksums.h"
#include "encoder/filter.h"
#include "encoder/png_file.h"
#include "encoder/strip.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Images = nb::ndarray<const uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

// The length of a PNG chunk and the sides of an image are below 2^31.
constexpr size_t PNG_LIMIT = 0x7FFFFFFF;

[[noreturn]] void refuse(const std::string& message) { throw nb::value_error(message.c_str()); }

const cnnviz::Dispatch* fastest_level() {
    const cnnviz::Dispatch* levels[cnnviz::MAX_LEVELS];
    const size_t count = cnnviz::supported_levels(levels);
    const char* no_simd = std::getenv("CNNVIZ_NO_SIMD");
    const bool switched_off = no_simd != nullptr && *no_simd != '\0' && std::strcmp(no_simd, "0") != 0;
    return levels[switched_off ? 0 : count - 1];
}

// The one piece of state of the module: which of the constant dispatch tables the calls below use.
std::atomic<const cnnviz::Dispatch*>& active_level() {
    static std::atomic<const cnnviz::Dispatch*> level{fastest_level()};
    return level;
}

std::vector<std::string> vector_levels() {
    const cnnviz::Dispatch* levels[cnnviz::MAX_LEVELS];
    std::vector<std::string> names;
    const size_t count = cnnviz::supported_levels(levels);
    for (size_t i = 0; i < count; i++) names.emplace_back(levels[i]->name);
    return names;
}

void set_vector_level(const std::string& name) {
    const cnnviz::Dispatch* level = cnnviz::find_level(name.c_str());
    if (level == nullptr) {
        std::string known;
        for (const std::string& supported : vector_levels()) known += (known.empty() ? "'" : ", '") + supported + "'";
        refuse("name must be one of " + known + " on this processor, got '" + name + "'.");
    }
    active_level() = level;
}

size_t strip_bound(size_t rows, size_t row_bytes) {
    if (rows == 0 || row_bytes == 0) refuse("rows and row_bytes must be at least 1, got 0.");
    if (row_bytes >= PNG_LIMIT || rows > PNG_LIMIT / (row_bytes + 1) ||
        cnnviz::strip_bound(rows, row_bytes) > PNG_LIMIT) {
        refuse("rows * row_bytes must fit one PNG chunk (2^31 bytes), got " + std::to_string(rows) + " rows of " +
               std::to_string(row_bytes) + ". Use fewer rows a strip.");
    }
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
    const cnnviz::Dispatch& dispatch = *active_level();
    cnnviz::EncodedStrip encoded;
    {
        nb::gil_scoped_release released;
        encoded = cnnviz::encode_strip(dispatch, strip, out.data());
    }
    if (encoded.size == 0) throw std::bad_alloc();
    return nb::make_tuple(encoded.size, encoded.adler, encoded.filtered_bytes);
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
    for (const nb::bytes& path : paths) {
        names.push_back(path.c_str());
        if (std::strlen(path.c_str()) != path.size()) refuse("paths must not contain zero bytes.");
    }
    const cnnviz::Dispatch& dispatch = *active_level();
    cnnviz::WrittenFiles written;
    {
        nb::gil_scoped_release released;
        written = cnnviz::write_png_files(dispatch, batch, names.data());
    }
    return nb::make_tuple(written.count, written.error);
}

void filter_row(unsigned filter, const Bytes& row, const Bytes& above, size_t bytes_per_pixel,
                const Output& residuals) {
    if (filter > 4 || filter == 3) refuse("filter must be 0, 1, 2 or 4, got " + std::to_string(filter) + ".");
    if (bytes_per_pixel == 0) refuse("bytes_per_pixel must be at least 1, got 0.");
    if (above.shape(0) != row.shape(0) || residuals.shape(0) != row.shape(0)) {
        refuse("row, above and residuals must have the same length, got " + std::to_string(row.shape(0)) + ", " +
               std::to_string(above.shape(0)) + " and " + std::to_string(residuals.shape(0)) + ".");
    }
    active_level().load()->filter_row(static_cast<cnnviz::Filter>(filter), row.data(), above.data(), row.shape(0),
                                      bytes_per_pixel, residuals.data());
}

uint32_t adler32(const Bytes& bytes, uint32_t adler) {
    const cnnviz::Dispatch& dispatch = *active_level();
    nb::gil_scoped_release released;
    return dispatch.adler32(adler, bytes.data(), bytes.shape(0));
}

uint32_t crc32(const Bytes& bytes, uint32_t crc) {
    const cnnviz::Dispatch& dispatch = *active_level();
    nb::gil_scoped_release released;
    return dispatch.crc32(crc, bytes.data(), bytes.shape(0));
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "The native PNG encoder of cnnviz_fast. Its types are described in _native.pyi.";
    m.def("encode_strip", &encode_strip, "pixels"_a.noconvert(), "bytes_per_pixel"_a, "out"_a.noconvert(),
          "Deflate a strip of rows into one complete IDAT chunk.");
    m.def("strip_bound", &strip_bound, "rows"_a, "row_bytes"_a,
          "Return the bytes that `out` of encode_strip must have.");
    m.def("write_png_files", &write_png_files, "pixels"_a.noconvert(), "palette"_a.none(), "paths"_a,
          "Encode each image and write it to its path.");
    m.def("adler32", &adler32, "data"_a.noconvert(), "adler"_a = cnnviz::ADLER32_START,
          "Return the Adler-32 checksum.");
    m.def("adler32_combine", &cnnviz::adler32_combine, "adler1"_a, "adler2"_a, "len2"_a,
          "Return the Adler-32 checksum of two byte strings joined.");
    m.def("crc32", &crc32, "data"_a.noconvert(), "crc"_a = cnnviz::CRC32_START, "Return the CRC-32 checksum.");
    m.def("filter_row", &filter_row, "filter"_a, "row"_a.noconvert(), "above"_a.noconvert(), "bytes_per_pixel"_a,
          "residuals"_a.noconvert(), "Write the residuals of one row.");
    m.def(
        "vector_level", [] { return active_level().load()->name; }, "Return the level of vector instructions in use.");
    m.def("vector_levels", &vector_levels, "Return the levels this processor has, slowest first.");
    m.def("set_vector_level", &set_vector_level, "name"_a, "Choose the level for all later calls, for tests.");
}
