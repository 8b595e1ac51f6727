// Files and threads of Windows.

#define WIN32_LEAN_AND_MEAN
#include <fcntl.h>
#include <io.h>
#include <process.h>
#include <sys/stat.h>
#include <windows.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "system/files.h"
#include "system/threads.h"

namespace cnnviz {
namespace {

// Virus scanners and indexers open what was just written, for moments, in which it cannot be moved.
constexpr DWORD PATIENCE_MS = 1000;
constexpr DWORD POLL_MS = 10;

// FileRenameInfoEx and two of its flags, which not every SDK names: from Windows 10 on, NTFS replaces by it a file that
// is open, where those who opened it share its removal.
constexpr auto RENAME_CLASS = static_cast<FILE_INFO_BY_HANDLE_CLASS>(22);
constexpr DWORD RENAME_REPLACES = 1;
constexpr DWORD RENAME_LIKE_POSIX = 2;

// The path as Windows takes it, of any length; empty if it is not UTF-8.
std::wstring wide(const char* path) {
    const int size = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, nullptr, 0);
    if (size <= 1) return {};
    std::wstring given(static_cast<size_t>(size), L'\0');
    MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, &given[0], size);
    std::wstring whole(GetFullPathNameW(given.c_str(), 0, nullptr, nullptr), L'\0');
    whole.resize(GetFullPathNameW(given.c_str(), static_cast<DWORD>(whole.size()), &whole[0], nullptr));
    if (whole.size() < MAX_PATH || whole.compare(0, 4, L"\\\\?\\") == 0) return whole;
    const bool shared = whole.compare(0, 2, L"\\\\") == 0;
    return shared ? L"\\\\?\\UNC\\" + whole.substr(2) : L"\\\\?\\" + whole;
}

int errno_of(DWORD error) {
    switch (error) {
        case ERROR_FILE_NOT_FOUND:
        case ERROR_PATH_NOT_FOUND:
            return ENOENT;
        case ERROR_ACCESS_DENIED:
        case ERROR_SHARING_VIOLATION:
        case ERROR_LOCK_VIOLATION:
            return EACCES;
        case ERROR_DISK_FULL:
        case ERROR_HANDLE_DISK_FULL:
            return ENOSPC;
        default:
            return EIO;
    }
}

bool rename_like_posix(const std::wstring& from, const std::wstring& to) {
    const HANDLE file = CreateFileW(from.c_str(), DELETE, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr,
                                    OPEN_EXISTING, FILE_FLAG_OPEN_REPARSE_POINT, nullptr);
    if (file == INVALID_HANDLE_VALUE) return false;
    const size_t name_bytes = to.size() * sizeof(wchar_t);
    const size_t bytes = sizeof(FILE_RENAME_INFO) + name_bytes;
    auto* info = static_cast<FILE_RENAME_INFO*>(std::calloc(1, bytes));
    bool renamed = false;
    if (info != nullptr) {
        const DWORD flags = RENAME_REPLACES | RENAME_LIKE_POSIX;
        std::memcpy(info, &flags, sizeof flags);  // the first member, which older SDKs have as a BOOLEAN alone
        info->FileNameLength = static_cast<DWORD>(name_bytes);
        std::memcpy(info->FileName, to.data(), name_bytes);
        renamed = SetFileInformationByHandle(file, RENAME_CLASS, info, static_cast<DWORD>(bytes)) != 0;
    }
    std::free(info);
    CloseHandle(file);
    return renamed;
}

}  // namespace

int create_file(const char* path) {
    return _wopen(wide(path).c_str(), _O_WRONLY | _O_CREAT | _O_EXCL | _O_BINARY | _O_NOINHERIT, _S_IREAD | _S_IWRITE);
}

int write_all(int file, const uint8_t* bytes, size_t count) {
    while (count > 0) {
        const int written = _write(file, bytes, static_cast<unsigned>(std::min<size_t>(count, INT_MAX)));
        if (written < 0) return errno;
        bytes += written;
        count -= static_cast<size_t>(written);
    }
    return 0;
}

int close_file(int file) { return _close(file) == 0 ? 0 : errno; }

void remove_file(const char* path) { DeleteFileW(wide(path).c_str()); }

int move_file(const char* from, const char* to) {
    const std::wstring source = wide(from);
    const std::wstring target = wide(to);
    for (DWORD waited = 0;; waited += POLL_MS) {
        if (MoveFileExW(source.c_str(), target.c_str(), MOVEFILE_REPLACE_EXISTING) != 0) return 0;
        const int error = errno_of(GetLastError());
        if (error != EACCES) return error;
        if (rename_like_posix(source, target)) return 0;
        if (waited >= PATIENCE_MS) return error;
        Sleep(POLL_MS);
    }
}

bool start_thread(void (*work)(void*), void* argument) {
    return _beginthread(work, 0, argument) != static_cast<uintptr_t>(-1);
}

long process_id() { return static_cast<long>(GetCurrentProcessId()); }

}  // namespace cnnviz
