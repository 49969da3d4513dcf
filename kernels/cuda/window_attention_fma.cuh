// The window transformer block in float32 on the ordinary cores: what a warp does with the 32 tokens of two windows.
//
// Four lanes share four tokens: each holds a quarter of the channels of all four, so that a weight it reads (from L1)
// serves four multiplications. Of what they compute together, queries, keys, values, hidden units, each lane then holds
// those of one token, its own; attention takes the keys and values of the window's other lanes by shuffles.
#pragma once
#include <cstdint>

#include "host_device.cuh"
#include "window_attention_steps.cuh"

namespace emsr {

constexpr int kFmaHeadChannels = 4;

struct alignas(16) Float4 {
  float v[4];
};

EMSR_HOST_DEVICE Float4 load_four(const void* from, uint32_t index) {
  return *reinterpret_cast<const Float4*>(static_cast<const float*>(from) + index);
}

// `Warp` is the 32 lanes: lane, shuffles, exp.
template <class Warp, int kChannels>
class TokenStep {
  static constexpr uint32_t kOwn = kChannels / 4;  // channels of a lane
  static constexpr uint32_t kShared = 4;           // tokens of four lanes

 public:
  EMSR_HOST_DEVICE TokenStep(const Warp& warp, const WindowAttentionWeights& weights)
      : warp_(warp), weights_(weights), quarter_(warp.lane % 4), first_channel_(quarter_ * kOwn) {}

  // The block of two windows, from the first on: x (B, C, H, W) into out, channels side by side.
  EMSR_HOST_DEVICE void run(const ImageView& x, const ImageView& out, uint32_t first) {
    const WindowPlace place = window_place(x, first + warp_.lane / kTokens);
    const uint32_t first_token = warp_.lane % kTokens / kShared * kShared;
#pragma unroll
    for (uint32_t t = 0; t < kShared; ++t) {
      const float* pixel = static_cast<const float*>(x.data) + place.offset(x, first_token + t) + first_channel_;
#pragma unroll
      for (uint32_t i = 0; i < kOwn; i += 4) {
        Float4 four = {};
        if (place.inside >> (first_token + t) & 1) four = load_four(pixel, i);
#pragma unroll
        for (int e = 0; e < 4; ++e) x_[t][i + e] = four.v[e];
      }
    }
    normalise(weights_.norm1_weight, weights_.norm1_bias);
    add_bias(weights_.proj_bias);
#pragma unroll 1
    for (uint32_t head = 0; head < kChannels / kFmaHeadChannels; ++head) attend(head, place.keys());
    normalise(weights_.norm2_weight, weights_.norm2_bias);
    add_bias(weights_.fc2_bias);
#pragma unroll 1
    for (uint32_t unit = 0; unit < weights_.hidden; unit += 4) think(unit);
    // where the window lies is found again: it is cheaper than the registers that would hold it
    const uint32_t lane = warp_.forget(warp_.lane), same_token = lane % kTokens / kShared * kShared;
    const WindowPlace same = window_place(x, warp_.forget(first) + lane / kTokens);
#pragma unroll
    for (uint32_t t = 0; t < kShared; ++t) {
      if (!(same.inside >> (same_token + t) & 1)) continue;
      float* pixel = static_cast<float*>(out.data) + same.offset(out, same_token + t) + first_channel_;
#pragma unroll
      for (uint32_t i = 0; i < kOwn; i += 4) {
        *reinterpret_cast<Float4*>(pixel + i) = {x_[t][i], x_[t][i + 1], x_[t][i + 2], x_[t][i + 3]};
      }
    }
  }

 private:
  EMSR_HOST_DEVICE float sum_of_four_lanes(float value) const {
    value += warp_.shuffle_xor(value, 1);
    return value + warp_.shuffle_xor(value, 2);
  }

  EMSR_HOST_DEVICE void normalise(const void* weight, const void* bias) {
#pragma unroll
    for (uint32_t t = 0; t < kShared; ++t) {
      float sum = 0, squares = 0;
#pragma unroll
      for (uint32_t i = 0; i < kOwn; ++i) sum += x_[t][i];
      const float mean = sum_of_four_lanes(sum) * (1.f / kChannels);
#pragma unroll
      for (uint32_t i = 0; i < kOwn; ++i) squares += (x_[t][i] - mean) * (x_[t][i] - mean);
      const float scale = 1 / sqrtf(sum_of_four_lanes(squares) * (1.f / kChannels) + 1e-5f);
#pragma unroll
      for (uint32_t i = 0; i < kOwn; ++i) normed_[t][i] = (x_[t][i] - mean) * scale;
    }
#pragma unroll
    for (uint32_t i = 0; i < kOwn; i += 4) {
      const Float4 w = load_four(weight, first_channel_ + i), b = load_four(bias, first_channel_ + i);
#pragma unroll
      for (uint32_t k = 0; k < 16; ++k) normed_[k / 4][i + k % 4] = normed_[k / 4][i + k % 4] * w.v[k % 4] + b.v[k % 4];
    }
  }

  EMSR_HOST_DEVICE void add_bias(const void* bias) {
#pragma unroll
    for (uint32_t i = 0; i < kOwn; i += 4) {
      const Float4 b = load_four(bias, first_channel_ + i);
#pragma unroll
      for (uint32_t k = 0; k < 16; ++k) x_[k / 4][i + k % 4] += b.v[k % 4];
    }
  }

  // Sums over four lanes, of token t in lane t.
  EMSR_HOST_DEVICE float own_sum(const float (&sums)[kShared]) const {
    const bool upper = quarter_ >= 2, odd = quarter_ % 2 == 1;
    const float even_token = (upper ? sums[2] : sums[0]) + warp_.shuffle_xor(upper ? sums[0] : sums[2], 2);
    const float odd_token = (upper ? sums[3] : sums[1]) + warp_.shuffle_xor(upper ? sums[1] : sums[3], 2);
    return (odd ? odd_token : even_token) + warp_.shuffle_xor(odd ? even_token : odd_token, 1);
  }

  // Four outputs of a matrix (outputs, kChannels), from row `row`, of the lane's own token.
  EMSR_HOST_DEVICE Float4 product(const void* matrix, uint32_t row) const {
    Float4 result;
#pragma unroll
    for (uint32_t output = 0; output < 4; ++output) {
      float sums[kShared] = {};
#pragma unroll
      for (uint32_t i = 0; i < kOwn; i += 4) {
        const Float4 w = load_four(matrix, (row + output) * kChannels + first_channel_ + i);
#pragma unroll
        for (uint32_t k = 0; k < 16; ++k) sums[k / 4] += normed_[k / 4][i + k % 4] * w.v[k % 4];
      }
      result.v[output] = own_sum(sums);
      warp_.fence();
    }
    return result;
  }

  // Adds four inputs' share, columns from `col` of a matrix (kChannels, inputs), to the residual stream.
  EMSR_HOST_DEVICE void add_product(const void* matrix, uint32_t inputs, uint32_t col, const Float4& own) {
    Float4 from[kShared];
#pragma unroll
    for (uint32_t k = 0; k < 16; ++k) from[k / 4].v[k % 4] = warp_.shuffle(own.v[k % 4], warp_.lane - quarter_ + k / 4);
#pragma unroll
    for (uint32_t i = 0; i < kOwn; ++i) {
      const Float4 w = load_four(matrix, (first_channel_ + i) * inputs + col);
#pragma unroll
      for (uint32_t k = 0; k < 16; ++k) x_[k / 4][i] += from[k / 4].v[k % 4] * w.v[k % 4];
    }
  }

  // One head: queries, keys, values, attention, and its share of the projection.
  EMSR_HOST_DEVICE void attend(uint32_t head, uint32_t keys) {
    static_assert(kFmaHeadChannels == 4);
    const uint32_t row = head * kFmaHeadChannels, first_lane = warp_.lane / kTokens * kTokens;
    const Float4 q = product(weights_.qkv_weight, row), k = product(weights_.qkv_weight, kChannels + row);
    const Float4 v = product(weights_.qkv_weight, 2 * kChannels + row);
    float scores[kTokens], most = -Warp::kInfinity, total = 0;
#pragma unroll
    for (uint32_t key = 0; key < kTokens; ++key) {
      float score = 0;
#pragma unroll
      for (int e = 0; e < 4; ++e) score += 0.5f * q.v[e] * warp_.shuffle(k.v[e], first_lane + key);
      scores[key] = keys >> key & 1 ? score : -Warp::kInfinity;
      most = warp_.larger(most, scores[key]);
    }
    Float4 mixed = {};
#pragma unroll
    for (uint32_t key = 0; key < kTokens; ++key) {
      const float share = warp_.exp(scores[key] - most);
      total += share;
#pragma unroll
      for (int e = 0; e < 4; ++e) mixed.v[e] += share * warp_.shuffle(v.v[e], first_lane + key);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) mixed.v[e] /= total;
    add_product(weights_.proj_weight, kChannels, row, mixed);
  }

  // Four hidden units, and their share of the features.
  EMSR_HOST_DEVICE void think(uint32_t unit) {
    Float4 hidden = product(weights_.fc1_weight, unit);
    const Float4 bias = load_four(weights_.fc1_bias, unit);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      hidden.v[e] += bias.v[e];
      hidden.v[e] = hidden.v[e] < 0 ? 0 : hidden.v[e];  // a NaN stays
    }
    add_product(weights_.fc2_weight, weights_.hidden, unit, hidden);
  }

  const Warp& warp_;
  const WindowAttentionWeights& weights_;
  uint32_t quarter_, first_channel_;
  float x_[kShared][kOwn];       // the residual stream
  float normed_[kShared][kOwn];  // what a LayerNorm made of it
};

}  // namespace emsr
