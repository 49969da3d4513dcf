// A 3x3 convolution of 64 to 64 channels: what the 128 threads of a block do with their share of the rows.
//
// Four rows of x lie in shared memory: three for the products of an output row, and the one that arrives meanwhile. What
// follows the convolution is computed on the float32 sums, with the second image's row, and rounded once, in the place
// where that row lay; from there it is written to the output while the next row's products run in the block that shares
// the multiprocessor.
#pragma once
#include <cstdint>

#include "conv3x3.h"
#include "conv_planes.cuh"

namespace emsr {

constexpr int kConvColumns = 128;  // of a strip

struct ConvImages {
  ImageView x, other, out;  // (B, 64, H, W), channels side by side, pixels on multiples of 16 bytes
  Activation activation;
  Combine combine;
};

template <class Group, int kColumns>
class ConvStrip {
  using Input = Planes<kColumns + 2>;
  using Output = Planes<kColumns>;
  static constexpr uint32_t kRing = 4;  // rows of x
  static_assert(kColumns % 16 == 0);

 public:
  static constexpr uint32_t kSharedBytes = kRing * Input::kBytes + 2 * Output::kBytes;

  EMSR_HOST_DEVICE ConvStrip(const Group& group, const void* weight) : group_(group) { weights_.load(weight, group.thread); }

  EMSR_HOST_DEVICE void run(const ConvImages& images, const Segment& rows) {
    for (int row = rows.first - 1; row < rows.first + 2; ++row) fetch_input(images, rows, row);
    fetch_other(images, rows, rows.first, turn_);
#pragma unroll 1
    for (int row = rows.first; row < rows.last; ++row) {
      group_.wait_copies();
      group_.publish();
      // three rows have arrived; nobody reads the fourth, or the other output row, any more
      group_.sync();
      const uint32_t near[3] = {slot(row - 1), slot(row), slot(row + 1)};
      float sums[kColumns / 2];
      start_products<Input>(group_, weights_, near, sums);
      if (row + 1 < rows.last) {
        fetch_input(images, rows, row + 2);
        fetch_other(images, rows, row + 1, turn_ ^ 1);
      }
      group_.wait_products(sums);
      finish(images, sums);
      group_.sync();
      write_row<Output, kColumns>(group_, images.out, rows.b, row, rows.col, output(turn_));
      turn_ ^= 1;
    }
  }

 private:
  EMSR_HOST_DEVICE uint32_t slot(int row) const {
    return group_.shared + static_cast<uint32_t>(row) % kRing * Input::kBytes;
  }
  EMSR_HOST_DEVICE uint32_t output(uint32_t turn) const {
    return group_.shared + kRing * Input::kBytes + turn * Output::kBytes;
  }

  EMSR_HOST_DEVICE void fetch_input(const ConvImages& images, const Segment& rows, int row) const {
    fetch_row<Input>(group_, images.x, rows.b, row, rows.col - 1, slot(row));
  }
  EMSR_HOST_DEVICE void fetch_other(const ConvImages& images, const Segment& rows, int row, uint32_t turn) const {
    if (images.combine == Combine::kNothing) return;
    fetch_row<Output>(group_, images.other, rows.b, row, rows.col, output(turn));
  }

  EMSR_HOST_DEVICE void finish(const ConvImages& images, float (&sums)[kColumns / 2]) const {
    if (images.activation == Activation::kRelu) relu(sums);
    if (images.activation == Activation::kLeakyRelu) leaky_relu(sums);
    const auto store = [&](auto combined) {
      for_matrices<Output>(group_, output(turn_), sums, [&](uint32_t address, const float* of_lane) {
        uint32_t words[4];
        combined(address, of_lane, words);
        group_.store_transposed(address, words);
      });
    };
    if (images.combine == Combine::kNothing) {
      store([&](uint32_t, const float* of_lane, uint32_t* words) {
#pragma unroll
        for (int i = 0; i < 4; ++i) words[i] = group_.pack(of_lane[2 * i], of_lane[2 * i + 1]);
      });
    } else {
      // other + sums * other, or other + sums * 1
      const bool gated = images.combine == Combine::kGate;
      store([&](uint32_t address, const float* of_lane, uint32_t* words) {
        group_.load_transposed(address, words);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float low, high;
          group_.unpack(words[i], low, high);
          words[i] = group_.pack(low + of_lane[2 * i] * (gated ? low : 1), high + of_lane[2 * i + 1] * (gated ? high : 1));
        }
      });
    }
  }

  const Group& group_;
  LayerWeights weights_;
  uint32_t turn_ = 0;  // of the two output rows
};

}  // namespace emsr
