#include "parallel.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

namespace emsr {
namespace {

struct Job {
  Job(int64_t count_, TaskBody body_, const void* context_) : count(count_), body(body_), context(context_) {}

  // Take tasks until none is left. An exception ends the job: the tasks not yet begun are dropped.
  void work() {
    try {
      for (int64_t task; (task = next.fetch_add(1)) < count;) body(context, task);
    } catch (...) {
      next = count;
      const std::lock_guard<std::mutex> lock(error_mutex);
      if (!error) error = std::current_exception();
    }
  }

  const int64_t count;
  const TaskBody body;
  const void* const context;
  std::atomic<int64_t> next{0};
  int helpers_wanted = 0;  // both guarded by the pool's mutex
  int helpers_busy = 0;
  std::mutex error_mutex;
  std::exception_ptr error;
};

class Pool {
 public:
  void run(Job& job, int helpers) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (; workers_ < helpers; ++workers_) std::thread([this] { serve(); }).detach();
      job.helpers_wanted = helpers;
      jobs_.push_back(&job);
    }
    for (int i = 0; i < helpers; ++i) work_.notify_one();
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    // helpers that have not come by now would find nothing to do
    const auto waiting = std::find(jobs_.begin(), jobs_.end(), &job);
    if (waiting != jobs_.end()) jobs_.erase(waiting);
    done_.wait(lock, [&] { return job.helpers_busy == 0; });
  }

 private:
  void serve() {
    // signals belong to the program's own threads
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      work_.wait(lock, [this] { return !jobs_.empty(); });
      Job& job = *jobs_.front();
      ++job.helpers_busy;
      if (--job.helpers_wanted == 0) jobs_.pop_front();
      lock.unlock();
      job.work();
      lock.lock();
      if (--job.helpers_busy == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable work_, done_;
  std::deque<Job*> jobs_;  // those that still want helpers
  int workers_ = 0;
};

// Never destroyed: its threads may be asleep in it when the program ends.
std::atomic<Pool*> pool{new Pool};

// Threads do not survive fork(): the child starts with an empty pool and leaves the old one alone. Registered when this
// module is loaded: a fork while another thread makes the first call must not find it half done.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });

struct Buffer {
  ~Buffer() { std::free(data); }
  void* data = nullptr;
  size_t bytes = 0;
};

}  // namespace

void run_tasks(int64_t count, int threads, TaskBody body, const void* context) {
  Job job(count, body, context);
  const int helpers = static_cast<int>(std::min<int64_t>(count, threads)) - 1;
  if (helpers > 0) {
    pool.load()->run(job, helpers);
  } else {
    job.work();
  }
  if (job.error) std::rethrow_exception(job.error);
}

void* scratch(Scratch which, size_t bytes) {
  thread_local Buffer buffers[2];
  Buffer& buffer = buffers[static_cast<int>(which)];
  if (buffer.bytes < bytes) {
    const size_t rounded = (bytes + 4095) / 4096 * 4096;
    std::free(buffer.data);
    buffer.bytes = 0;
    buffer.data = std::aligned_alloc(64, rounded);
    if (buffer.data == nullptr) throw std::bad_alloc();
    buffer.bytes = rounded;
  }
  return buffer.data;
}

}  // namespace emsr
