// The threads of a GPU's block on the CPU, and its shared memory with a memory model that is stricter than the GPU's.
//
// Each thread is a coroutine. Where threads must meet (a barrier, an instruction of a warp or of a group of 128) they wait
// until all of them are there; threads that wait for ever end the program. Shared memory starts as NaN and knows of each 16
// bytes who wrote and who read them last, in vector clocks: a read or write that no barrier orders behind another
// thread's ends the program, in whatever order the threads happen to run.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

[[noreturn]] inline void stop(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  // from within a coroutine: nothing is torn down
  std::_Exit(3);
}

using Clock = std::vector<uint32_t>;

class Block {
 public:
  Block(int threads, uint32_t shared_bytes, bool reverse)
      : threads_(threads), reverse_(reverse), clocks_(threads, Clock(threads, 0)), granules_(shared_bytes / 16),
        dirty_(threads) {
    // exactly the size used, aligned as the GPU's is, so that the address sanitizer sees a step outside
    memory_ = static_cast<unsigned char*>(std::aligned_alloc(16, shared_bytes));
    std::memset(memory_, 0xff, shared_bytes);  // NaN
    for (int t = 0; t < threads; ++t) clocks_[t][t] = 1;
    for (Granule& g : granules_) g.read_at.assign(threads, 0);
  }
  ~Block() { std::free(memory_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  // Runs body(thread) for all threads, from the first to the last or the other way round.
  void run(const std::function<void(int)>& body) {
    body_ = &body;
    contexts_.resize(threads_);
    waiting_.assign(threads_, false);
    done_.assign(threads_, false);
    static std::vector<std::vector<char>> stacks;
    if (stacks.size() < static_cast<size_t>(threads_)) stacks.resize(threads_, std::vector<char>(1 << 17));
    self() = this;
    for (int t = 0; t < threads_; ++t) {
      getcontext(&contexts_[t]);
      contexts_[t].uc_stack.ss_sp = stacks[t].data();
      contexts_[t].uc_stack.ss_size = stacks[t].size();
      contexts_[t].uc_link = &main_;
      makecontext(&contexts_[t], reinterpret_cast<void (*)()>(&Block::enter), 0);
    }
    for (bool moved = true; moved;) {
      moved = false;
      for (int i = 0; i < threads_; ++i) {
        current_ = reverse_ ? threads_ - 1 - i : i;
        if (done_[current_] || waiting_[current_]) continue;
        swapcontext(&main_, &contexts_[current_]);
        moved = true;
      }
    }
    if (std::find(done_.begin(), done_.end(), false) != done_.end()) stop("threads wait for each other for ever");
  }

  // Waits until `expected` threads are at this place; the last one's `action` serves all of them.
  void meet(const std::string& place, int expected, const std::function<void()>& action) {
    Meeting& meeting = meetings_[place];
    meeting.threads.push_back(current_);
    if (static_cast<int>(meeting.threads.size() + meeting.passed) == expected) {
      action();
      for (int t : meeting.threads) waiting_[t] = false;
      meetings_.erase(place);
      return;
    }
    const int own = current_;
    waiting_[own] = true;
    swapcontext(&contexts_[own], &main_);
  }

  // A barrier: what anybody did before it has happened for everybody behind it.
  void barrier(const std::string& name, int expected) {
    arrived(name);
    meet(name, expected, [this, name] { release(name); });
  }
  // The same, but without waiting for the others.
  void arrive(const std::string& name, int expected) {
    arrived(name);
    Meeting& meeting = meetings_[name];
    ++meeting.passed;
    if (static_cast<int>(meeting.threads.size() + meeting.passed) == expected) {
      release(name);
      for (int t : meeting.threads) waiting_[t] = false;
      meetings_.erase(name);
    }
  }

  // Shared memory: 16 bytes at an address that a thread reads or writes. A pending write is a copy on its way, which the
  // same thread finishes by another write. What is not published is dirty: the tensor cores may not see it.
  const unsigned char* read(uint32_t address, int thread) {
    Granule& g = granule(address);
    if (g.writer >= 0 && g.writer != thread && clocks_[thread][g.writer] < g.written_at) stop("read of an unordered write");
    if (g.pending) stop("read of a copy on its way");
    g.read_at[thread] = clocks_[thread][thread];
    return memory_ + address;
  }
  unsigned char* write(uint32_t address, int thread, bool pending = false) {
    Granule& g = granule(address);
    if (g.writer >= 0 && g.writer != thread && clocks_[thread][g.writer] < g.written_at) stop("two unordered writes");
    if (g.tensor_reads > 0) stop("write of what products still read");
    for (int t = 0; t < threads_; ++t) {
      if (t != thread && clocks_[thread][t] < g.read_at[t]) stop("write of what another thread may still read");
    }
    g.writer = thread;
    g.written_at = clocks_[thread][thread];
    g.pending = pending;
    g.dirty = true;
    dirty_[thread].push_back(address / 16);
    return memory_ + address;
  }
  // Reads by the tensor cores, between the start of a product and its end.
  const unsigned char* tensor_read(uint32_t address, int thread) {
    const Granule& g = granule(address);
    if (g.writer < 0) stop("product of what was never written");
    if (g.dirty || (g.writer != thread && clocks_[thread][g.writer] < g.published_at)) {
      stop("product of what was not published");
    }
    return read(address, thread);
  }
  void hold(uint32_t address, int by) { granule(address).tensor_reads += by; }
  // A product may read what its writer published before a barrier that lies before the product.
  void publish(int thread) {
    for (uint32_t index : dirty_[thread]) {
      Granule& g = granules_[index];
      if (g.writer != thread || g.pending) continue;
      g.dirty = false;
      g.published_at = clocks_[thread][thread];
    }
    dirty_[thread].clear();
  }

 private:
  struct Meeting {
    std::vector<int> threads;
    size_t passed = 0;
  };
  struct Granule {
    int writer = -1;
    uint32_t written_at = 0, published_at = 0;
    bool pending = false, dirty = false;
    int tensor_reads = 0;
    Clock read_at;
  };

  Granule& granule(uint32_t address) {
    if (address % 16 != 0) stop("address is no multiple of 16");
    if (address / 16 >= granules_.size()) stop("address outside shared memory");
    return granules_[address / 16];
  }
  void arrived(const std::string& name) {
    Clock& clock = barriers_[name];
    clock.resize(threads_);
    for (int t = 0; t < threads_; ++t) clock[t] = std::max(clock[t], clocks_[current_][t]);
    // what it does from now on is later than the barrier
    ++clocks_[current_][current_];
  }
  // Only those who wait learn of the others: a thread that merely arrives has not.
  void release(const std::string& name) {
    const Clock& clock = barriers_[name];
    for (int t : meetings_[name].threads) {
      for (int u = 0; u < threads_; ++u) clocks_[t][u] = std::max(clocks_[t][u], clock[u]);
    }
    barriers_.erase(name);
  }

  static Block*& self() {
    static Block* block = nullptr;
    return block;
  }
  static void enter() {
    Block& block = *self();
    const int thread = block.current_;
    (*block.body_)(thread);
    block.done_[thread] = true;
  }

  int threads_, current_ = 0;
  bool reverse_;
  unsigned char* memory_;
  std::vector<Clock> clocks_;
  std::vector<Granule> granules_;
  std::vector<std::vector<uint32_t>> dirty_;  // granules, by writer
  std::map<std::string, Meeting> meetings_;
  std::map<std::string, Clock> barriers_;
  std::vector<ucontext_t> contexts_;
  std::vector<bool> waiting_, done_;
  ucontext_t main_;
  const std::function<void(int)>* body_ = nullptr;
};
