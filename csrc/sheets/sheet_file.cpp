#include "sheets/sheet_file.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "buffer.h"
#include "encoder/checksums.h"
#include "encoder/strip.h"
#include "system/files.h"
#include "workers.h"

namespace cnnviz {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// How often the caller is asked whether to stop: it may have to wait for a lock to answer.
constexpr double ASK_EVERY_S = 0.1;

// An encoded strip that waits for those before it.
struct Encoded {
    Buffer<uint8_t> chunk;
    EncodedStrip strip;
    bool ready = false;
};

class SheetWriter {
  public:
    SheetWriter(const Dispatch& dispatch, const SheetPicture& picture, size_t strip_rows, size_t threads, int file,
                const std::function<bool()>& wants_to_stop)
        : dispatch_(dispatch),
          picture_(picture),
          strip_rows_(strip_rows),
          strips_((picture.height + strip_rows - 1) / strip_rows),
          file_(file),
          wants_to_stop_(wants_to_stop),
          caller_(std::this_thread::get_id()),
          ring_(std::min(strips_, 2 * threads)) {}

    void work() {
        StageSeconds seconds = {};
        const size_t width = picture_.sheet.width;
        const size_t pixel_bytes = picture_.overlay ? 3 : 1;
        const Buffer<uint8_t> entries = allocate<uint8_t>(strip_rows_ * width);
        const Buffer<uint8_t> colored = allocate<uint8_t>(picture_.overlay ? strip_rows_ * width * 3 : 1);
        if (!entries || !colored) fail(ENOMEM);
        for (size_t strip; take(strip);) {
            const size_t start = strip * strip_rows_;
            const size_t stop = std::min(start + strip_rows_, picture_.height);
            const auto drawing = Clock::now();
            const uint8_t* pixels = draw(start, stop, entries.get(), colored.get());
            seconds.render += since(drawing);
            const auto encoding = Clock::now();
            Encoded& slot = ring_[strip % ring_.size()];
            if (!slot.chunk) slot.chunk = allocate<uint8_t>(strip_bound(strip_rows_, width * pixel_bytes));
            if (pixels && slot.chunk) {
                const Strip rows = {pixels, stop - start, width * pixel_bytes, pixel_bytes};
                slot.strip = encode_strip(dispatch_, rows, slot.chunk.get());
            }
            seconds.encode += since(encoding);
            if (!pixels || !slot.chunk || slot.strip.size == 0) {
                fail(ENOMEM);
                break;
            }
            seconds.write += deliver(slot);
            ask_caller();
        }
        const std::lock_guard<std::mutex> lock(mutex_);
        written_.seconds.render += seconds.render;
        written_.seconds.encode += seconds.encode;
        written_.seconds.write += seconds.write;
    }

    WrittenSheet written() const { return written_; }

  private:
    // Takes the next strip, once its place in the ring is free. Returns false when there is nothing left to do.
    bool take(size_t& strip) {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return ended() || next_ < done_ + ring_.size(); });
        if (ended()) return false;
        strip = next_++;
        return true;
    }

    bool ended() const { return written_.error != 0 || written_.stopped || next_ == strips_; }

    const uint8_t* draw(size_t start, size_t stop, uint8_t* entries, uint8_t* colored) const {
        if (!render_strip(dispatch_, picture_.sheet, start, stop, 1, entries)) return nullptr;
        if (picture_.overlay && !blend_strip(*picture_.overlay, entries, start, stop, colored)) return nullptr;
        for (const TextBlock& block : picture_.blocks) stamp(block, start, stop, entries, colored);
        return picture_.overlay ? colored : entries;
    }

    void stamp(const TextBlock& block, size_t start, size_t stop, uint8_t* entries, uint8_t* colored) const {
        const size_t first = std::max(start, block.y);
        const size_t last = std::min(stop, block.y + block.height);
        for (size_t y = first; y < last; y++) {
            const uint8_t* row = block.entries + (y - block.y) * block.width;
            const size_t at = (y - start) * picture_.sheet.width + block.x;
            if (!picture_.overlay) {
                std::memcpy(entries + at, row, block.width);
                continue;
            }
            for (size_t x = 0; x < block.width; x++) std::memcpy(colored + 3 * (at + x), picture_.colors + 3 * row[x], 3);
        }
    }

    // Hands a strip over, and writes all strips whose turn it is, unless another thread is just doing that. Returns the
    // seconds that writing took.
    double deliver(Encoded& slot) {
        double seconds = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        slot.ready = true;
        while (!writing_ && written_.error == 0 && done_ < next_ && ring_[done_ % ring_.size()].ready) {
            Encoded& first = ring_[done_ % ring_.size()];
            writing_ = true;
            lock.unlock();
            const auto begun = Clock::now();
            const int error = write_all(file_, first.chunk.get(), first.strip.size);
            seconds += since(begun);
            lock.lock();
            writing_ = false;
            if (error != 0) written_.error = error;
            written_.adler = adler32_combine(written_.adler, first.strip.adler, first.strip.filtered_bytes);
            first.ready = false;
            done_++;
            changed_.notify_all();
        }
        return seconds;
    }

    void fail(int error) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (written_.error == 0) written_.error = error;
        changed_.notify_all();
    }

    void ask_caller() {
        if (std::this_thread::get_id() != caller_ || since(asked_) < ASK_EVERY_S) return;
        asked_ = Clock::now();
        if (!wants_to_stop_()) return;
        const std::lock_guard<std::mutex> lock(mutex_);
        written_.stopped = true;
        changed_.notify_all();
    }

    const Dispatch& dispatch_;
    const SheetPicture& picture_;
    const size_t strip_rows_;
    const size_t strips_;
    const int file_;
    const std::function<bool()>& wants_to_stop_;
    const std::thread::id caller_;
    Clock::time_point asked_ = Clock::now();  // of the caller's thread alone

    std::mutex mutex_;  // guards what follows
    std::condition_variable changed_;
    std::vector<Encoded> ring_;  // strip k waits in place k modulo its size; a place is its worker's until it is ready
    size_t next_ = 0;            // strip to be taken
    size_t done_ = 0;            // strips written
    bool writing_ = false;
    WrittenSheet written_ = {0, false, ADLER32_START, {}};
};

}  // namespace

WrittenSheet write_sheet(const Dispatch& dispatch, const SheetPicture& picture, size_t strip_rows, size_t threads,
                         int file, const std::function<bool()>& wants_to_stop) {
    const size_t strips = (picture.height + strip_rows - 1) / strip_rows;
    threads = std::max<size_t>(1, std::min(threads, strips));
    SheetWriter writer(dispatch, picture, strip_rows, threads, file, wants_to_stop);
    run_in_threads(threads, [&writer] { writer.work(); });
    return writer.written();
}

}  // namespace cnnviz
