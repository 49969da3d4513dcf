// What the CPU kernels need to know of this machine's caches.
#pragma once
#include <cstdint>

namespace emsr {

struct Caches {
  int64_t l2;    // bytes of the L2 cache that a core uses
  int64_t line;  // bytes of a cache line
};

// As the system reports them, read when the module is loaded; 512 KiB and 64 bytes where it does not.
const Caches& caches();

}  // namespace emsr
