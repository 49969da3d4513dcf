// The window transformer block on tensor cores, in float16 or bfloat16: what a warp does with two windows.
//
// A window's 16 tokens are the 16 rows of an mma. Its accumulators, taken in pairs, are the operand of the next mma as
// they are, so nothing but weights ever passes through shared memory: the residual stream stays in float32
// accumulators, and the products add to it. Fragment positions are those of the PTX ISA for m16n8k16 and m16n8k8: lane
// 4 g + t holds rows g and g + 8 and columns 2 t and 2 t + 1 of each tile of 8 columns. tests/native runs this code on
// the CPU, with 32 lanes that meet at every mma and shuffle.
//
// `Warp` is the 32 lanes: lane, mma, shuffles, and conversions to the 16-bit type.
#pragma once
#include <cstdint>

#include "host_device.cuh"
#include "window_attention_softmax.cuh"
#include "window_attention_steps.cuh"
#include "window_attention_weights.cuh"

namespace emsr {

template <class Warp, int kChannels>
class WindowStep {
  using Order = FeatureOrder<kChannels>;
  static constexpr int kTiles = Order::kTiles, kBlocks = Order::kBlocks;

 public:
  EMSR_HOST_DEVICE WindowStep(const Warp& warp, const BlockWeights<kChannels>& weights)
      : warp_(warp), weights_(weights), lane_(warp.lane) {}

  // The block of two windows, from the first on: x (B, C, H, W) into out, channels side by side.
  EMSR_HOST_DEVICE void run(const ImageView& x, const ImageView& out, uint32_t first) {
    uint32_t keys = 0;  // 16 bits of each window: the tokens that exist
#pragma unroll
    for (int w = 0; w < kStepWindows; ++w) {
      const WindowPlace place = window_place(x, first + static_cast<uint32_t>(w));
      keys |= place.keys() << (kTokens * w);
      load(x, place, x_[w]);
    }
    masked_ = keys != ~0u;
    // so that the lane's columns of a tile are bits 0 and 1 for every lane
    keys >>= 2 * quarter();
    normalise(weights_.norm1_weight, weights_.norm1_bias);
    add_bias(weights_.proj_bias);
#pragma unroll 1
    for (uint32_t group = 0; group < kBlocks; ++group) attend(group, keys);
    normalise(weights_.norm2_weight, weights_.norm2_bias);
    add_bias(weights_.fc2_bias);
#pragma unroll 1
    for (uint32_t group = 0; group < weights_.hidden / kBlockSide; ++group) think(group);
    // where a window lies is found again: it is cheaper than the registers that would hold it
    first = warp_.forget(first);
    lane_ = warp_.forget(lane_);
#pragma unroll
    for (int w = 0; w < kStepWindows; ++w) store(out, window_place(x, first + static_cast<uint32_t>(w)), x_[w]);
  }

 private:
  using Tile = float[4];      // rows g and g + 8, two columns each
  using Operand = uint32_t[4];  // the same of two tiles, in 16 bits

  EMSR_HOST_DEVICE uint32_t row() const { return lane_ / 4; }      // g
  EMSR_HOST_DEVICE uint32_t quarter() const { return lane_ % 4; }  // t

  EMSR_HOST_DEVICE void load(const ImageView& x, const WindowPlace& place, Tile (&tiles)[kTiles]) const {
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t token = row() + 8 * half;
      const uint16_t* pixel = static_cast<const uint16_t*>(x.data) + place.offset(x, token) + quarter() * Order::kVector;
#pragma unroll
      for (int v = 0; v < Order::kVectors; ++v) {
        Words<Order::kWords> words = {};
        if (place.inside >> token & 1) words = load_words<Order::kWords>(pixel + v * 4 * Order::kVector);
#pragma unroll
        for (int i = 0; i < Order::kWords; ++i) {
          float* pair = tiles[v * Order::kWords + i] + 2 * half;
          warp_.unpack(words.word[i], pair[0], pair[1]);
        }
      }
    }
  }

  EMSR_HOST_DEVICE void store(const ImageView& out, const WindowPlace& place, const Tile (&tiles)[kTiles]) const {
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t token = row() + 8 * half;
      uint16_t* pixel = static_cast<uint16_t*>(out.data) + place.offset(out, token) + quarter() * Order::kVector;
#pragma unroll
      for (int v = 0; v < Order::kVectors; ++v) {
        Words<Order::kWords> words;
#pragma unroll
        for (int i = 0; i < Order::kWords; ++i) {
          const float* pair = tiles[v * Order::kWords + i] + 2 * half;
          words.word[i] = warp_.pack(pair[0], pair[1]);
        }
        if (place.inside >> token & 1) *reinterpret_cast<Words<Order::kWords>*>(pixel + v * 4 * Order::kVector) = words;
      }
    }
  }

  // tokens_ = LayerNorm of x_ over the channels, which the four lanes of a row hold together.
  EMSR_HOST_DEVICE void normalise(const float* weight, const float* bias) {
#pragma unroll
    for (int w = 0; w < kStepWindows; ++w) {
#pragma unroll
      for (uint32_t half = 0; half < 2; ++half) {
        float sum = 0, squares = 0;
#pragma unroll
        for (int j = 0; j < kTiles; ++j) sum += x_[w][j][2 * half] + x_[w][j][2 * half + 1];
        const float mean = sum_of_row(sum) * (1.f / kChannels);
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          const float a = x_[w][j][2 * half] - mean, b = x_[w][j][2 * half + 1] - mean;
          squares += a * a + b * b;
        }
        const float scale = warp_.reciprocal_root(sum_of_row(squares) * (1.f / kChannels) + 1e-5f);
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          const uint32_t channel = Order::channel(j, 2 * quarter());
          const float a = (x_[w][j][2 * half] - mean) * scale, b = (x_[w][j][2 * half + 1] - mean) * scale;
          tokens_[w][j / 2][j % 2 * 2 + half] =
              warp_.pack(a * weight[channel] + bias[channel], b * weight[channel + 1] + bias[channel + 1]);
        }
      }
    }
  }

  EMSR_HOST_DEVICE float sum_of_row(float value) const {
    value += warp_.shuffle_xor(value, 1);
    return value + warp_.shuffle_xor(value, 2);
  }

  EMSR_HOST_DEVICE void add_bias(const float* bias) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const uint32_t channel = Order::channel(j, 2 * quarter());
#pragma unroll
      for (int w = 0; w < kStepWindows; ++w) {
#pragma unroll
        for (int i = 0; i < 4; ++i) x_[w][j][i] += bias[channel + i % 2];
      }
    }
  }

  // A lane's words of a block: rows g of the first tile, inputs low and high, then those of the second tile.
  EMSR_HOST_DEVICE Words<4> block(const uint32_t* matrix, uint32_t index) const {
    return load_words<4>(matrix + index * kBlockWords + lane_ * 4);
  }

  // Adds 16 outputs of every token to `sums`: tokens are rows.
  EMSR_HOST_DEVICE void product(const uint32_t* matrix, uint32_t outputs, Tile (&sums)[kStepWindows][2]) const {
#pragma unroll
    for (uint32_t s = 0; s < kBlocks; ++s) {
      const Words<4> b = block(matrix, outputs * kBlocks + s);
#pragma unroll
      for (int w = 0; w < kStepWindows; ++w) {
        warp_.mma16(sums[w][0], tokens_[w][s], b.word[0], b.word[1]);
        warp_.mma16(sums[w][1], tokens_[w][s], b.word[2], b.word[3]);
      }
    }
  }

  // The same transposed: the 16 outputs are rows, as packed, tokens 0 to 7 and 8 to 15 columns. A token's operand serves as it is.
  EMSR_HOST_DEVICE void transposed_product(const uint32_t* matrix, uint32_t outputs, Tile (&sums)[kStepWindows][2]) const {
#pragma unroll
    for (uint32_t s = 0; s < kBlocks; ++s) {
      const Words<4> a = block(matrix, outputs * kBlocks + s);
#pragma unroll
      for (int w = 0; w < kStepWindows; ++w) {
        warp_.mma16(sums[w][0], a.word, tokens_[w][s][0], tokens_[w][s][2]);
        warp_.mma16(sums[w][1], a.word, tokens_[w][s][1], tokens_[w][s][3]);
      }
    }
  }

  // Adds 16 inputs' share of all features to the residual stream.
  EMSR_HOST_DEVICE void add_product(const uint32_t* matrix, uint32_t blocks_in, uint32_t inputs,
                                    const Operand (&a)[kStepWindows]) {
#pragma unroll
    for (uint32_t outputs = 0; outputs < kBlocks; ++outputs) {
      const Words<4> b = block(matrix, outputs * blocks_in + inputs);
#pragma unroll
      for (int w = 0; w < kStepWindows; ++w) {
        warp_.mma16(x_[w][2 * outputs], a[w], b.word[0], b.word[1]);
        warp_.mma16(x_[w][2 * outputs + 1], a[w], b.word[2], b.word[3]);
      }
    }
  }

  EMSR_HOST_DEVICE void pack(const Tile (&tiles)[2], Operand& operand) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) operand[i] = warp_.pack(tiles[i / 2][i % 2 * 2], tiles[i / 2][i % 2 * 2 + 1]);
  }

  // Four heads, 16 channels: queries, keys and values, attention, and their share of the projection.
  EMSR_HOST_DEVICE void attend(uint32_t group, uint32_t keys) {
    Operand q[kStepWindows], k[kStepWindows], v[kStepWindows], attended[kStepWindows];
    Tile sums[kStepWindows][2];
    const auto finish = [&](Operand(&to)[kStepWindows]) {
#pragma unroll
      for (int w = 0; w < kStepWindows; ++w) pack(sums[w], to[w]);
    };
    clear(sums);
    product(weights_.qkv, group, sums);
    finish(q);
    clear(sums);
    product(weights_.qkv, kBlocks + group, sums);
    finish(k);
    clear(sums);
    transposed_product(weights_.qkv, 2 * kBlocks + group, sums);
    finish(v);
#pragma unroll
    for (int w = 0; w < kStepWindows; ++w) {
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        attend_pair(q[w] + 2 * pair, k[w] + 2 * pair, v[w][pair], v[w][2 + pair], keys, kTokens * w,
                    attended[w] + 2 * pair);
      }
    }
    add_product(weights_.proj, kBlocks, group, attended);
  }

  // Two heads, 8 channels: the first is columns 0 to 3, lanes with t < 2, of a tile. Other operands' columns, of the
  // other head, are set to 0 in the queries, and to 1 in the values, where they add up the softmax's denominator.
  EMSR_HOST_DEVICE void attend_pair(const uint32_t* q, const uint32_t* k, uint32_t v_low, uint32_t v_high, uint32_t keys,
                                    int first_key, uint32_t* attended) const {
    Tile mixed[2];
#pragma unroll
    for (uint32_t head = 0; head < 2; ++head) {
      const bool own_query = quarter() / 2 == head, own_value = row() / 4 == head;
      const uint32_t queries[2] = {own_query ? q[0] : 0, own_query ? q[1] : 0};
      Tile scores[2] = {};
      warp_.mma8(scores[0], queries, k[0]);
      warp_.mma8(scores[1], queries, k[1]);
      softmax(warp_, scores, masked_, keys, first_key);
      Operand shares;
      pack(scores, shares);
      clear(mixed[head]);
      warp_.mma16(mixed[head], shares, own_value ? v_low : Warp::kOnes, own_value ? v_high : Warp::kOnes);
    }
    const bool first = quarter() < 2;
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
      // the sum of this lane's head lies in the other head's columns, two lanes away
      const float sum = warp_.shuffle_xor(first ? mixed[1][2 * half] : mixed[0][2 * half], 2);
      const float share = warp_.reciprocal(sum);
      const float a = first ? mixed[0][2 * half] : mixed[1][2 * half];
      const float b = first ? mixed[0][2 * half + 1] : mixed[1][2 * half + 1];
      attended[half] = warp_.pack(a * share, b * share);
    }
  }

  // 16 hidden units, and their share of the features.
  EMSR_HOST_DEVICE void think(uint32_t group) {
    Tile sums[kStepWindows][2];
    Operand hidden[kStepWindows];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float bias = weights_.fc1_bias[group * kBlockSide + i / 4 * 8 + quarter() * 2 + i % 2];
#pragma unroll
      for (int w = 0; w < kStepWindows; ++w) sums[w][i / 4][i % 4] = bias;
    }
    product(weights_.fc1, group, sums);
#pragma unroll
    for (int w = 0; w < kStepWindows; ++w) {
      pack(sums[w], hidden[w]);
#pragma unroll
      for (int i = 0; i < 4; ++i) hidden[w][i] = warp_.relu(hidden[w][i]);
    }
    add_product(weights_.fc2, weights_.hidden / kBlockSide, group, hidden);
  }

  EMSR_HOST_DEVICE static void clear(Tile& tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) tile[i] = 0;
  }
  EMSR_HOST_DEVICE static void clear(Tile (&tiles)[kStepWindows][2]) {
#pragma unroll
    for (int i = 0; i < 2 * kStepWindows; ++i) clear(tiles[i / 2][i % 2]);
  }

  const Warp& warp_;
  const BlockWeights<kChannels>& weights_;
  uint32_t lane_;
  bool masked_;  // a token does not exist
  Tile x_[kStepWindows][kTiles];              // the residual stream
  Operand tokens_[kStepWindows][kBlocks];     // normalised
};

}  // namespace emsr
