// How a launch shares its windows out: blocks, their warps, and the steps of two windows that a warp takes.
#pragma once
#include <cstdint>

#include "host_device.cuh"
#include "window_attention_place.cuh"

namespace emsr {

constexpr int kStepWindows = 2;      // windows of a warp at a time
constexpr int kMmaWarps = 12;        // of a block, one block on an SM: 168 registers a thread
constexpr int kFmaWarps = 8;         // 255 registers a thread
constexpr int64_t kMaxWindows = 2147483647;

EMSR_HOST_DEVICE int64_t step_count(const ImageView& x) { return (window_count(x) + kStepWindows - 1) / kStepWindows; }

// Neighbouring steps go to different blocks, so that few windows use many SMs.
struct StepsOfWarp {
  int64_t first, end, stride;

  EMSR_HOST_DEVICE StepsOfWarp(const ImageView& x, int warp, int warps, uint32_t block, uint32_t blocks)
      : first(block + int64_t{warp} * blocks), end(step_count(x)), stride(int64_t{warps} * blocks) {}
};

}  // namespace emsr
