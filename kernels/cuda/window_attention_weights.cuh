// How the tensor-core kernel holds weights and features: the order of a pixel's channels, the blocks of a matrix.
#pragma once
#include <cstdint>

#include "host_device.cuh"
#include "window_attention.h"

namespace emsr {

constexpr int kBlockSide = 16;    // weights are kept in blocks of 16 outputs x 16 inputs
constexpr int kBlockWords = 128;  // of two values each; four of every lane

template <int kWords>
struct alignas(4 * kWords) Words {
  uint32_t word[kWords];
};

template <int kWords>
EMSR_HOST_DEVICE Words<kWords> load_words(const void* from) {
  return *static_cast<const Words<kWords>*>(from);
}

// Features of a pixel: tile j, column 2 t + e stands for a channel such that the channels of a lane lie side by side.
template <int kChannels_>
struct FeatureOrder {
  static constexpr int kChannels = kChannels_;
  static constexpr int kTiles = kChannels / 8;
  static constexpr int kBlocks = kChannels / kBlockSide;
  static constexpr int kVector = kChannels / 4 < 8 ? kChannels / 4 : 8;  // channels a lane reads at once: 16 bytes
  static constexpr int kVectors = kChannels / (4 * kVector);
  static constexpr int kWords = kVector / 2;
  static_assert(kChannels % kBlockSide == 0 && kVectors * kWords == kTiles);

  EMSR_HOST_DEVICE static uint32_t channel(uint32_t tile, uint32_t column) {
    return tile / kWords * 4 * kVector + column / 2 * kVector + tile % kWords * 2 + column % 2;
  }
};

// Shared memory of a thread block: matrices in 16-bit blocks, vectors in float32.
template <int kChannels>
struct BlockWeights {
  uint32_t *qkv, *proj, *fc1, *fc2;
  float *norm1_weight, *norm1_bias, *proj_bias, *norm2_weight, *norm2_bias, *fc2_bias, *fc1_bias;
  uint32_t hidden;

  EMSR_HOST_DEVICE static uint32_t bytes(uint32_t hidden) {
    return 2 * (4 * kChannels * kChannels + 2 * kChannels * hidden) + 4 * (6 * kChannels + hidden);
  }

  EMSR_HOST_DEVICE BlockWeights(void* memory, uint32_t hidden_) : hidden(hidden_) {
    // what has a fixed size comes first: its place is known when this is compiled
    qkv = static_cast<uint32_t*>(memory);
    proj = qkv + 3 * kChannels * kChannels / 2;
    norm1_weight = reinterpret_cast<float*>(proj + kChannels * kChannels / 2);
    norm1_bias = norm1_weight + kChannels;
    proj_bias = norm1_bias + kChannels;
    norm2_weight = proj_bias + kChannels;
    norm2_bias = norm2_weight + kChannels;
    fc2_bias = norm2_bias + kChannels;
    fc1 = reinterpret_cast<uint32_t*>(fc2_bias + kChannels);
    fc2 = fc1 + kChannels * hidden / 2;
    fc1_bias = reinterpret_cast<float*>(fc2 + kChannels * hidden / 2);
  }
};

// Writes a matrix (outputs, inputs) in blocks, as the lanes read them: lane 4 g + t, words (tile, half) of row g and
// columns 2 t, 2 t + 1; blocks from `transposed` on: words (half, tile), as the first operand of an mma has them.
// Either the inputs or the outputs are features of a pixel, in their order.
template <class Order, bool kFeaturesIn>
EMSR_HOST_DEVICE void pack_matrix(const void* weight, uint32_t outputs, uint32_t inputs, uint32_t* packed, uint32_t thread,
                                  uint32_t threads, uint32_t transposed = ~0u) {
  const auto* pairs = static_cast<const uint32_t*>(weight);
  const uint32_t blocks_in = inputs / kBlockSide;
#pragma unroll 4
  for (uint32_t word = thread; word < outputs * inputs / 2; word += threads) {
    const uint32_t block = word / kBlockWords, lane = word % kBlockWords / 4;
    const uint32_t high = word % 4 / 2, low = word % 2;
    const bool swapped = block >= transposed;
    const uint32_t tile = 2 * (block / blocks_in) + (swapped ? low : high);
    const uint32_t tile_in = 2 * (block % blocks_in) + (swapped ? high : low);
    const uint32_t row = kFeaturesIn ? 8 * tile + lane / 4 : Order::channel(tile, lane / 4);
    const uint32_t col = kFeaturesIn ? Order::channel(tile_in, lane % 4 * 2) : 8 * tile_in + lane % 4 * 2;
    packed[word] = pairs[(row * inputs + col) / 2];
  }
}

template <typename T>
EMSR_HOST_DEVICE void widen(const void* from, uint32_t length, float* to, uint32_t thread, uint32_t threads) {
#pragma unroll 1
  for (uint32_t i = thread; i < length; i += threads) to[i] = static_cast<float>(static_cast<const T*>(from)[i]);
}

// Brings the weights into shared memory; the threads of a block meet before they use them.
template <typename T, int kChannels>
EMSR_HOST_DEVICE void stage_weights(const WindowAttentionWeights& from, const BlockWeights<kChannels>& to, uint32_t thread,
                                    uint32_t threads) {
  using Order = FeatureOrder<kChannels>;
  pack_matrix<Order, true>(from.qkv_weight, 3 * kChannels, kChannels, to.qkv, thread, threads,
                           2 * Order::kBlocks * Order::kBlocks);  // the values
  pack_matrix<Order, false>(from.proj_weight, kChannels, kChannels, to.proj, thread, threads);
  pack_matrix<Order, true>(from.fc1_weight, to.hidden, kChannels, to.fc1, thread, threads);
  pack_matrix<Order, false>(from.fc2_weight, kChannels, to.hidden, to.fc2, thread, threads);
  widen<T>(from.norm1_weight, kChannels, to.norm1_weight, thread, threads);
  widen<T>(from.norm1_bias, kChannels, to.norm1_bias, thread, threads);
  widen<T>(from.proj_bias, kChannels, to.proj_bias, thread, threads);
  widen<T>(from.norm2_weight, kChannels, to.norm2_weight, thread, threads);
  widen<T>(from.norm2_bias, kChannels, to.norm2_bias, thread, threads);
  widen<T>(from.fc2_bias, kChannels, to.fc2_bias, thread, threads);
  widen<T>(from.fc1_bias, to.hidden, to.fc1_bias, thread, threads);
}

}  // namespace emsr
