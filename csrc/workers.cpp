#include "workers.h"

#include <atomic>
#include <condition_variable>
#include <iterator>
#include <list>
#include <mutex>

#include "system/threads.h"

namespace cnnviz {
namespace {

// What one caller wants done: `wanted` more threads may take it, `active` have and are not back.
struct Task {
    const std::function<void()>& work;
    size_t wanted;
    size_t active;
};

class Pool {
  public:
    const long owner = process_id();

    void run(size_t helpers, const std::function<void()>& work) {
        std::unique_lock<std::mutex> lock(mutex_);
        start(helpers);
        tasks_.push_back({work, helpers, 0});
        const auto task = std::prev(tasks_.end());
        lock.unlock();
        arrived_.notify_all();
        work();
        lock.lock();
        task->wanted = 0;
        finished_.wait(lock, [&task] { return task->active == 0; });
        tasks_.erase(task);
    }

  private:
    // Where no more threads can be had, there are fewer helpers.
    void start(size_t helpers) {
        while (threads_ < helpers && may_start_) {
            may_start_ = start_thread([](void* pool) { static_cast<Pool*>(pool)->serve(); }, this);
            if (may_start_) threads_++;
        }
    }

    void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            auto task = tasks_.begin();
            while (task != tasks_.end() && task->wanted == 0) ++task;
            if (task == tasks_.end()) {
                arrived_.wait(lock);
                continue;
            }
            task->wanted--;
            task->active++;
            lock.unlock();
            task->work();
            lock.lock();
            task->active--;
            finished_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable arrived_;
    std::condition_variable finished_;
    std::list<Task> tasks_;
    size_t threads_ = 0;
    bool may_start_ = true;
};

// Threads do not survive a fork, so each process has a pool of its own; and no lock is taken to find it, which another
// thread may have held at the fork. Never destroyed: its threads wait to the end.
Pool& pool_of_this_process() {
    static std::atomic<Pool*> current{nullptr};
    Pool* pool = current.load();
    while (pool == nullptr || pool->owner != process_id()) {
        Pool* made = new Pool();
        if (current.compare_exchange_strong(pool, made)) return *made;
        delete made;
    }
    return *pool;
}

}  // namespace

void run_in_threads(size_t threads, const std::function<void()>& work) {
    if (threads <= 1) {
        work();
    } else {
        pool_of_this_process().run(threads - 1, work);
    }
}

}  // namespace cnnviz
