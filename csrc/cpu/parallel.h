// Threads and scratch memory for the CPU kernels: a pool that sleeps between calls and survives fork().
#pragma once
#include <cstddef>
#include <cstdint>

namespace emsr {

using TaskBody = void (*)(const void* context, int64_t task);

// Runs body(context, task) for every task in [0, count), on at most `threads` threads, the caller's among them.
// Returns when all are done; the first exception of a task is rethrown here.
void run_tasks(int64_t count, int threads, TaskBody body, const void* context);

// The same for a callable, body(task).
template <typename Body>
void parallel_for(int64_t count, int threads, const Body& body) {
  run_tasks(count, threads, [](const void* context, int64_t task) { (*static_cast<const Body*>(context))(task); }, &body);
}

// What a call shares among its threads, and what each thread works in: two buffers that never alias.
enum class Scratch { kShared, kOwn };

// This thread's buffer, at least `bytes` long and 64-byte aligned; kept for the next call, contents undefined.
void* scratch(Scratch which, size_t bytes);

}  // namespace emsr
