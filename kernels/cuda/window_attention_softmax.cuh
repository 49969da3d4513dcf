// The softmax of the window transformer on tensor cores: a row's scores lie in the four lanes of a row.
#pragma once
#include <cstdint>

#include "host_device.cuh"

namespace emsr {

constexpr int kMmaHeadChannels = 4;  // channels of a head

// scores = exp(score / sqrt(head channels) - its maximum), not yet divided by the sum. Where some keys are masked, those
// that do not exist take no part: `keys` has a bit for each that does, this window's from `first_key` on.
template <class Warp>
EMSR_HOST_DEVICE void softmax(const Warp& warp, float (&scores)[2][4], bool masked, uint32_t keys, int first_key) {
  if (masked) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (!(keys >> (first_key + i / 4 * 8 + i % 2) & 1)) scores[i / 4][i % 4] = -Warp::kInfinity;
    }
  }
  constexpr float kScale = 0.5f * 1.44269504f;  // 1 / sqrt(4), and exp2 in place of exp
  static_assert(kMmaHeadChannels == 4);
#pragma unroll
  for (uint32_t half = 0; half < 2; ++half) {
    float most = warp.larger(warp.larger(scores[0][2 * half], scores[0][2 * half + 1]),
                             warp.larger(scores[1][2 * half], scores[1][2 * half + 1]));
    most = warp.larger(most, warp.shuffle_xor(most, 1));
    most = warp.larger(most, warp.shuffle_xor(most, 2)) * kScale;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& score = scores[i / 2][2 * half + i % 2];
      score = warp.exp2(score * kScale - most);
    }
  }
}

}  // namespace emsr
