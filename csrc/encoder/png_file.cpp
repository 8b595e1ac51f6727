#include "encoder/png_file.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "encoder/checksums.h"
#include "encoder/chunk.h"
#include "encoder/strip.h"
#include "encoder/zlib_format.h"
#include "system/files.h"
#include "system/threads.h"

namespace cnnviz {
namespace {

constexpr uint8_t SIGNATURE[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};

constexpr size_t IHDR_BYTES = 13;

// Pixels of a strip, as many as stay in a core's own cache.
constexpr size_t STRIP_BYTES = 512 << 10;

size_t rows_per_strip(const ImageBatch& batch) {
    return std::min(batch.height, std::max<size_t>(STRIP_BYTES / batch.width, 1));
}

uint8_t* put_header(const Dispatch& dispatch, const ImageBatch& batch, uint8_t* out) {
    std::memcpy(out, SIGNATURE, sizeof SIGNATURE);
    uint8_t* chunk = out + sizeof SIGNATURE;
    uint8_t* next = chunk + CHUNK_HEAD_BYTES;
    next = put_big_endian_32(next, static_cast<uint32_t>(batch.width));
    next = put_big_endian_32(next, static_cast<uint32_t>(batch.height));
    constexpr uint8_t GREY = 0;
    constexpr uint8_t INDEXED = 3;
    // Bit depth, colour type; compression, filter and interlace methods 0.
    const uint8_t kind[5] = {8, batch.palette ? INDEXED : GREY, 0, 0, 0};
    std::memcpy(next, kind, sizeof kind);
    chunk = finish_chunk(dispatch, chunk, "IHDR", IHDR_BYTES);
    if (!batch.palette) return chunk;
    std::memcpy(chunk + CHUNK_HEAD_BYTES, batch.palette, 3 * batch.palette_size);
    return finish_chunk(dispatch, chunk, "PLTE", 3 * batch.palette_size);
}

#if defined(_WIN32)
constexpr char SEPARATORS[] = "/\\:";
#else
constexpr char SEPARATORS[] = "/";
#endif

// A name in the folder of `path` that no other process uses at this time.
std::string temporary_name(const std::string& path, size_t number, unsigned attempt) {
    const std::string folder = path.substr(0, path.find_last_of(SEPARATORS) + 1);
    return folder + ".cnnviz-" + std::to_string(process_id()) + "-" + std::to_string(number) + "-" +
           std::to_string(attempt) + ".tmp";
}

// Opens a new file beside `path`, and sets its name. Returns its descriptor, or -1 with errno set.
int open_temporary(const char* path, size_t number, std::string& name) {
    for (unsigned attempt = 0;; attempt++) {
        name = temporary_name(path, number, attempt);
        const int file = create_file(name.c_str());
        // Another thread of this process may be at an image of the same number, or an earlier process of the same id
        // was killed.
        if (file >= 0 || errno != EEXIST) return file;
    }
}

// Returns 0 or errno.
int write_file(const char* path, size_t number, const uint8_t* bytes, size_t count) {
    std::string name;
    const int file = open_temporary(path, number, name);
    if (file < 0) return errno;
    int error = write_all(file, bytes, count);
    const int not_closed = close_file(file);
    if (error == 0) error = not_closed;
    if (error == 0) error = move_file(name.c_str(), path);
    if (error != 0) remove_file(name.c_str());
    return error;
}

}  // namespace

size_t png_bound(const ImageBatch& batch) {
    const size_t rows = rows_per_strip(batch);
    const size_t strips = (batch.height + rows - 1) / rows;
    const size_t chunks = 3;  // IHDR, PLTE, IEND
    return sizeof SIGNATURE + chunks * CHUNK_OVERHEAD_BYTES + IHDR_BYTES + 3 * batch.palette_size + sizeof ZLIB_HEADER +
           strips * strip_bound(rows, batch.width) + sizeof LAST_BLOCK + ADLER_BYTES;
}

size_t encode_png(const Dispatch& dispatch, const ImageBatch& batch, size_t image, uint8_t* out) {
    const uint8_t* pixels = batch.pixels + image * batch.height * batch.width;
    const size_t rows = rows_per_strip(batch);
    uint8_t* chunk = put_header(dispatch, batch, out);
    uint32_t adler = ADLER32_START;
    for (size_t y = 0; y < batch.height; y += rows) {
        // Small images, the usual ones, are a single IDAT: the zlib header before the first strip, its trailer after
        // the last.
        uint8_t* next = chunk + CHUNK_HEAD_BYTES;
        if (y == 0) {
            std::memcpy(next, ZLIB_HEADER, sizeof ZLIB_HEADER);
            next += sizeof ZLIB_HEADER;
        }
        const Strip strip = {pixels + y * batch.width, std::min(rows, batch.height - y), batch.width, 1};
        const EncodedStrip encoded = deflate_strip(dispatch, strip, next);
        if (encoded.size == 0) return 0;
        adler = adler32_combine(adler, encoded.adler, encoded.filtered_bytes);
        next += encoded.size;
        if (y + rows >= batch.height) {
            std::memcpy(next, LAST_BLOCK, sizeof LAST_BLOCK);
            next = put_big_endian_32(next + sizeof LAST_BLOCK, adler);
        }
        chunk = finish_chunk(dispatch, chunk, "IDAT", static_cast<size_t>(next - chunk) - CHUNK_HEAD_BYTES);
    }
    return static_cast<size_t>(finish_chunk(dispatch, chunk, "IEND", 0) - out);
}

WrittenFiles write_png_files(const Dispatch& dispatch, const ImageBatch& batch, const char* const* paths) {
    // One buffer for all images: only the first of them pays for fresh memory.
    uint8_t* buffer = static_cast<uint8_t*>(std::malloc(png_bound(batch)));
    WrittenFiles written = {0, buffer ? 0 : ENOMEM};
    while (written.error == 0 && written.count < batch.count) {
        const size_t size = encode_png(dispatch, batch, written.count, buffer);
        written.error = size > 0 ? write_file(paths[written.count], written.count, buffer, size) : ENOMEM;
        if (written.error == 0) written.count++;
    }
    std::free(buffer);
    return written;
}

}  // namespace cnnviz
