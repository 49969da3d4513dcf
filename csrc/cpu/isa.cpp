#include "isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace emsr {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512"};

Isa best() {
#ifdef EMSR_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return Isa::kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

Isa asked_for() {
  const char* name = std::getenv("EMSR_FAST_CPU_ISA");
  if (name == nullptr || *name == '\0') return best();
  for (int i = 0; i < 3; ++i) {
    if (std::string(name) != kNames[i]) continue;
    if (i > static_cast<int>(best())) {
      throw std::runtime_error("EMSR_FAST_CPU_ISA is '" + std::string(name) + "', but the best this build and CPU have is '" +
                               kNames[static_cast<int>(best())] + "': unset it");
    }
    return static_cast<Isa>(i);
  }
  throw std::runtime_error("EMSR_FAST_CPU_ISA is '" + std::string(name) + "': use baseline, avx2 or avx512");
}

}  // namespace

Isa cpu_isa() {
  static const Isa isa = asked_for();
  return isa;
}

const char* cpu_isa_name() { return kNames[static_cast<int>(cpu_isa())]; }

}  // namespace emsr
