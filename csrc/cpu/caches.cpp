#include "caches.h"

#include <unistd.h>

#include <fstream>
#include <string>

#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace emsr {
namespace {

#if defined(__APPLE__)
int64_t read(const char* name) {
  int64_t value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 ? value : 0;
}

Caches reported() { return {read("hw.l2cachesize"), read("hw.cachelinesize")}; }
#else
// Files of Linux hold "1024K", "2M" or "64".
int64_t read(const char* name) {
  std::ifstream file(std::string("/sys/devices/system/cpu/cpu0/cache/index2/") + name);
  int64_t value = 0;
  char unit = ' ';
  file >> value >> unit;
  return unit == 'K' ? value << 10 : unit == 'M' ? value << 20 : value;
}

Caches reported() { return {read("size"), read("coherency_line_size")}; }
#endif

Caches found() {
  const Caches known = reported();
  return {known.l2 > 0 ? known.l2 : 512 << 10, known.line > 0 ? known.line : 64};
}

const Caches kFound = found();

}  // namespace

const Caches& caches() { return kFound; }

}  // namespace emsr
