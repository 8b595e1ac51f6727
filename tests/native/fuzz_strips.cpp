// Encodes seeded random images under the sanitizers and hands each file, with its pixels, to tests/native/fuzz.py on
// stdout.
//
// Usage: fuzz_strips FIRST_SEED COUNT FOLDER. Every image is encoded at every vector level into buffers of exactly the
// stated size; the results must be the same. FOLDER takes a few written files.

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#endif

#include "encoder/checksums.h"
#include "encoder/chunk.h"
#include "encoder/png_file.h"
#include "encoder/strip.h"
#include "encoder/zlib_stream.h"

namespace {

using Random = std::mt19937_64;
using Buffer = std::unique_ptr<uint8_t[]>;

struct Image {
    size_t height;
    size_t width;
    size_t bytes_per_pixel;
    size_t strip_rows;
    Buffer pixels;
    size_t row_bytes() const { return width * bytes_per_pixel; }
    size_t bytes() const { return height * row_bytes(); }
};

size_t pick(Random& random, size_t low, size_t high) { return low + random() % (high - low + 1); }

[[noreturn]] void fail(const char* what, size_t seed) {
    std::fprintf(stderr, "seed %zu: %s\n", seed, what);
    std::exit(1);
}

void draw_noise(Random& random, Image& image) {
    const uint8_t mask = static_cast<uint8_t>(0xFF >> pick(random, 0, 8));
    for (size_t i = 0; i < image.bytes(); i++) image.pixels[i] = static_cast<uint8_t>(random()) & mask;
}

void draw_runs(Random& random, Image& image) {
    const size_t longest = size_t{1} << pick(random, 0, 12);
    for (size_t i = 0; i < image.bytes();) {
        const uint8_t value = static_cast<uint8_t>(pick(random, 0, 3));
        for (size_t end = std::min(i + pick(random, 1, longest), image.bytes()); i < end; i++) image.pixels[i] = value;
    }
}

// Each value about half as likely as the one before: long Huffman codes.
void draw_skewed(Random& random, Image& image) {
    for (size_t i = 0; i < image.bytes(); i++) {
        uint8_t value = 0;
        while (random() % 2 == 0) value++;
        image.pixels[i] = static_cast<uint8_t>(value * 29);
    }
}

void draw_planes(Random& random, Image& image) {
    const size_t tile = pick(random, 4, 80);
    const size_t slope_y = pick(random, 0, 300);
    const size_t slope_x = pick(random, 0, 300);
    for (size_t i = 0; i < image.bytes(); i++) {
        const size_t y = i / image.row_bytes();
        const size_t x = i % image.row_bytes() / image.bytes_per_pixel;
        const size_t corner = (y / tile * 57 + x / tile * 91) % 200;
        image.pixels[i] = static_cast<uint8_t>(corner + (y % tile * slope_y + x % tile * slope_x) / 256);
    }
}

// Quiet at first, noise later or here and there: codes made from a sample that misleads.
void draw_mixed(Random& random, Image& image) {
    draw_planes(random, image);
    for (size_t y = 0; y < image.height; y++) {
        if (random() % 3 != 0) continue;
        for (size_t i = 0; i < image.row_bytes(); i++)
            image.pixels[y * image.row_bytes() + i] = static_cast<uint8_t>(random());
    }
}

Image draw(size_t seed) {
    Random random(seed);
    Image image{};
    image.bytes_per_pixel = random() % 4 == 0 ? 3 : 1;
    // Mostly small; some wide enough that strips are sampled.
    const bool wide = seed % 50 == 0;
    image.height = pick(random, 1, wide ? 30 : 40);
    image.width = wide ? pick(random, 3000, 9000) : pick(random, 1, seed % 3 == 0 ? 400 : 80);
    image.strip_rows = pick(random, 1, image.height);
    image.pixels.reset(new uint8_t[image.bytes()]);
    switch (random() % 6) {
        case 0:
            draw_noise(random, image);
            break;
        case 1:
            draw_runs(random, image);
            break;
        case 2:
            draw_skewed(random, image);
            break;
        case 3:
            draw_mixed(random, image);
            break;
        case 4:
            std::memset(image.pixels.get(), static_cast<int>(pick(random, 0, 255)), image.bytes());
            break;
        default:
            draw_planes(random, image);
            break;
    }
    return image;
}

struct Joined {
    std::vector<uint8_t> idat;
    uint32_t adler = cnnviz::ADLER32_START;
};

Joined encode_strips(const cnnviz::Dispatch& dispatch, const Image& image, size_t seed) {
    Joined joined;
    for (size_t y = 0; y < image.height; y += image.strip_rows) {
        const size_t rows = std::min(image.strip_rows, image.height - y);
        // A copy of its own, so that reading past a strip is noticed.
        Buffer pixels(new uint8_t[rows * image.row_bytes()]);
        std::memcpy(pixels.get(), image.pixels.get() + y * image.row_bytes(), rows * image.row_bytes());
        Buffer out(new uint8_t[cnnviz::strip_bound(rows, image.row_bytes())]);
        const cnnviz::Strip strip = {pixels.get(), rows, image.row_bytes(), image.bytes_per_pixel};
        const cnnviz::EncodedStrip encoded = cnnviz::encode_strip(dispatch, strip, out.get());
        if (encoded.size == 0 || encoded.filtered_bytes != rows * (image.row_bytes() + 1)) fail("wrong sizes", seed);
        joined.idat.insert(joined.idat.end(), out.get(), out.get() + encoded.size);
        joined.adler = cnnviz::adler32_combine(joined.adler, encoded.adler, encoded.filtered_bytes);
    }
    return joined;
}

std::vector<uint8_t> encode_file(const cnnviz::Dispatch& dispatch, const Image& image) {
    const cnnviz::ImageBatch batch = {image.pixels.get(), 1, image.height, image.width, nullptr, 0};
    Buffer out(new uint8_t[cnnviz::png_bound(batch)]);
    const size_t size = cnnviz::encode_png(dispatch, batch, 0, out.get());
    return {out.get(), out.get() + size};
}

// The pixels as a zlib stream of two parts, the second of which may be empty.
std::vector<uint8_t> deflate_pixels(const cnnviz::Dispatch& dispatch, const Image& image, size_t seed) {
    const size_t first = image.bytes() - seed % (image.bytes() + 1);
    // Copies of their own, so that reading past a part is noticed.
    const std::vector<uint8_t> a(image.pixels.get(), image.pixels.get() + first);
    const std::vector<uint8_t> b(image.pixels.get() + first, image.pixels.get() + image.bytes());
    const std::vector<cnnviz::Contents> parts = {{a.data(), a.size()}, {b.data(), b.size()}};
    Buffer out(new uint8_t[cnnviz::zlib_stream_bound(parts)]);
    const size_t size = cnnviz::put_zlib_stream(dispatch, parts, out.get());
    return {out.get(), out.get() + size};
}

// A record: height, width, bytes_per_pixel, size of the first part, Adler-32, sizes of the second and the third part, as
// 32 bits each; then the IDAT chunks of the strips, a whole file (grey images only), the pixels as a zlib stream, and
// the pixels.
void put_record(const Image& image, const Joined& joined, const std::vector<uint8_t>& file,
                const std::vector<uint8_t>& stream) {
    const uint32_t head[7] = {static_cast<uint32_t>(image.height),
                              static_cast<uint32_t>(image.width),
                              static_cast<uint32_t>(image.bytes_per_pixel),
                              static_cast<uint32_t>(joined.idat.size()),
                              joined.adler,
                              static_cast<uint32_t>(file.size()),
                              static_cast<uint32_t>(stream.size())};
    std::fwrite(head, sizeof head, 1, stdout);
    std::fwrite(joined.idat.data(), 1, joined.idat.size(), stdout);
    if (!file.empty()) std::fwrite(file.data(), 1, file.size(), stdout);
    std::fwrite(stream.data(), 1, stream.size(), stdout);
    std::fwrite(image.pixels.get(), 1, image.bytes(), stdout);
}

void write_files(const cnnviz::Dispatch& dispatch, const Image& image, const std::string& folder, size_t seed) {
    if (image.bytes_per_pixel != 1) return;
    const uint8_t palette[6] = {1, 2, 3, 4, 5, 6};
    const cnnviz::ImageBatch batch = {image.pixels.get(), 1, image.height, image.width, palette, 2};
    const std::string good = folder + "/" + std::to_string(seed) + ".png";
    const std::string bad = folder + "/missing/x.png";
    const char* paths[] = {good.c_str(), bad.c_str()};
    const cnnviz::WrittenFiles written = cnnviz::write_png_files(dispatch, batch, paths);
    if (written.count != 1 || written.error != 0) fail("file not written", seed);
    const cnnviz::WrittenFiles refused = cnnviz::write_png_files(dispatch, batch, paths + 1);
    if (refused.count != 0 || refused.error != ENOENT) fail("missing folder not noticed", seed);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: fuzz_strips FIRST_SEED COUNT FOLDER\n");
        return 2;
    }
#if defined(_WIN32)
    _setmode(_fileno(stdout), _O_BINARY);  // or each byte 10 would become two
#endif
    const cnnviz::Dispatch* levels[cnnviz::MAX_LEVELS];
    const size_t level_count = cnnviz::supported_levels(levels);
    const size_t first = std::strtoull(argv[1], nullptr, 10);
    const size_t count = std::strtoull(argv[2], nullptr, 10);
    for (size_t seed = first; seed < first + count; seed++) {
        const Image image = draw(seed);
        const Joined joined = encode_strips(*levels[0], image, seed);
        const std::vector<uint8_t> file =
            image.bytes_per_pixel == 1 ? encode_file(*levels[0], image) : std::vector<uint8_t>();
        const std::vector<uint8_t> stream = deflate_pixels(*levels[0], image, seed);
        for (size_t level = 1; level < level_count; level++) {
            const Joined other = encode_strips(*levels[level], image, seed);
            if (other.idat != joined.idat || other.adler != joined.adler) fail(levels[level]->name, seed);
            if (image.bytes_per_pixel == 1 && encode_file(*levels[level], image) != file)
                fail(levels[level]->name, seed);
            if (deflate_pixels(*levels[level], image, seed) != stream) fail(levels[level]->name, seed);
        }
        put_record(image, joined, file, stream);
        if (seed % 500 == 0) write_files(*levels[level_count - 1], image, argv[3], seed);
    }
    return 0;
}
