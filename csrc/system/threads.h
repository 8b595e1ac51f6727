// Threads and the process that they belong to, as the operating system has them.

#pragma once

namespace cnnviz {

// Starts a thread that nobody waits for. Returns whether it could be had, where std::thread would throw.
bool start_thread(void (*work)(void*), void* argument);

long process_id();

}  // namespace cnnviz
