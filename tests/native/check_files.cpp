// Checks what csrc does to files: names of any letters and length, and files that are replaced while others read them.
//
// Usage: check_files FOLDER. The folder is empty, and holds afterwards what was written.

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#if defined(_WIN32)
#include <windows.h>
#endif

#include "encoder/png_file.h"
#include "system/files.h"

namespace {

namespace fs = std::filesystem;

void check(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "files: %s\n", what);
    std::exit(1);
}

std::string utf8(const fs::path& path) { return path.u8string(); }

std::string content(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void put(const fs::path& path, const char* text) { std::ofstream(path, std::ios::binary) << text; }

// Writes a PNG of one pixel. Returns 0 or an errno.
int write_png(const fs::path& path) {
    const cnnviz::Dispatch* levels[cnnviz::MAX_LEVELS];
    cnnviz::supported_levels(levels);
    const uint8_t pixel = 7;
    const std::string name = utf8(path);
    const char* paths[] = {name.c_str()};
    return cnnviz::write_png_files(*levels[0], {&pixel, 1, 1, 1, nullptr, 0}, paths).error;
}

bool is_png(const fs::path& path) { return content(path).compare(1, 3, "PNG") == 0; }

void check_names(const fs::path& folder) {
    for (const char* name : {"plain.png", "caf\u00e9 \u6f22\u5b57 \U0001F600.png"}) {
        const fs::path path = folder / fs::u8path(name);
        check(write_png(path) == 0 && is_png(path), "a file is not written");
        put(path, "older");
        check(write_png(path) == 0 && is_png(path), "a file is not replaced");
    }
    check(write_png(folder / "missing" / "x.png") == ENOENT, "a missing folder is not told");
    check(write_png(folder) != 0, "a folder is replaced");
}

// Longer than the 260 characters that Windows takes without a prefix.
void check_long_name(const fs::path& folder) {
    const fs::path deep = fs::path(std::string(90, 'a')) / std::string(90, 'b') / std::string(90, 'c');
#if defined(_WIN32)
    const fs::path whole = L"\\\\?\\" + fs::absolute(folder).make_preferred().wstring();
#else
    const fs::path whole = folder;
#endif
    fs::create_directories(whole / deep);
    const fs::path path = folder / deep / "x.png", other = folder / deep / "x.tmp";
    check(write_png(path) == 0 && is_png(whole / deep / "x.png"), "a file of a long name is not written");
    put(whole / deep / "x.tmp", "newer");
    check(cnnviz::move_file(utf8(other).c_str(), utf8(path).c_str()) == 0, "a file of a long name is not moved");
    check(content(whole / deep / "x.png") == "newer", "another file of a long name was moved");
}

// A reader has the whole older file, or keeps the new one from coming: never a part of either.
void check_replaced_while_read(const fs::path& folder) {
    const fs::path path = folder / "read.png";
    put(path, "older");
    std::ifstream reader(path, std::ios::binary);
    const int error = write_png(path);
#if defined(_WIN32)
    check(error == EACCES && content(path) == "older", "a file is taken from a reader");
    reader.close();
    // Wine 8 lacks the call that replaces such a file.
    if (GetProcAddress(GetModuleHandleA("ntdll.dll"), "wine_get_version") != nullptr) return;
    const HANDLE sharing = CreateFileW(path.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                                       nullptr, OPEN_EXISTING, 0, nullptr);
    check(write_png(path) == 0, "a reader that shares its file keeps the new one from coming");
    CloseHandle(sharing);
#else
    check(error == 0, "a reader keeps a new file from coming");
    check(std::string(std::istreambuf_iterator<char>(reader), {}) == "older", "a reader sees a file change");
#endif
    check(is_png(path), "the new file is not there");
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: check_files FOLDER\n");
        return 2;
    }
    const fs::path folder = argv[1];
    check_names(folder);
    check_long_name(folder);
    check_replaced_while_read(folder);
    for (const fs::directory_entry& entry : fs::directory_iterator(folder))
        check(entry.is_directory() || entry.path().extension() == ".png", "a temporary file is left");
    return 0;
}
