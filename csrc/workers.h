// Native threads that wait between calls, so that no call starts one.

#pragma once

#include <cstddef>
#include <functional>

namespace cnnviz {

// Runs `work` in the calling thread and in up to `threads` - 1 others at once, each of which calls it once. Returns when
// every call has returned. Others that are busy with another caller's work are not waited for.
void run_in_threads(size_t threads, const std::function<void()>& work);

}  // namespace cnnviz
