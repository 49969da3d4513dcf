// Which instruction set the CPU kernels run on.
#pragma once

namespace emsr {

enum class Isa { kBaseline = 0, kAvx2 = 1, kAvx512 = 2 };

// The best one that this build has and this CPU runs, or what EMSR_FAST_CPU_ISA names (baseline, avx2, avx512).
// Throws std::runtime_error, at every call, when that variable names one that cannot run here.
Isa cpu_isa();

// "baseline", "avx2" or "avx512".
const char* cpu_isa_name();

}  // namespace emsr
