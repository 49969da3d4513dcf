// How a launch shares its windows out: blocks, their warps, and the steps of two windows that a warp takes.
#pragma once
#include <cstdint>

#include "host_device.cuh"
#include "window_attention_place.cuh"

namespace emsr {

constexpr int kStepWindows = 2;      // windows of a warp at a time
// Warps of a block, one block on an SM: as many as the registers of a thread allow without a spill.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kMmaWarps = 8;  // 255 registers
#else
constexpr int kMmaWarps = 12;  // 168 registers
#endif
constexpr int kFmaWarps = 8;
constexpr int64_t kMaxWindows = 2147483647;

EMSR_HOST_DEVICE int64_t step_count(const ImageView& x) { return (window_count(x) + kStepWindows - 1) / kStepWindows; }

// Calls run(first window of a step) for the steps of one warp; fewer than 2^30 in all. Neighbouring steps go to different
// blocks, so that few windows use many SMs.
template <class Run>
EMSR_HOST_DEVICE void for_steps_of_warp(int warp, int warps, int block, int blocks, int steps, Run run) {
#pragma unroll 1
  for (int step = block + warp * blocks; step < steps; step += warps * blocks) {
    run(static_cast<uint32_t>(step) * kStepWindows);
  }
}

}  // namespace emsr
