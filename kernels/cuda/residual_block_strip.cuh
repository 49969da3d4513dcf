// The residual block x + conv(relu(conv(x))), 64 channels: what the 256 threads of a block do with their share of the rows.
//
// Two groups of 128 threads hold a layer each. The first walks down x and writes the rows between the layers into a ring in
// shared memory; the second follows two rows behind, adds x from the ring it still lies in, and writes out. So x is read
// and the result written once, and nothing in between leaves the multiprocessor.
//
// The groups take turns: one starts its products when the other has started its own and is about to wait for them, so that
// an epilogue always runs beside the other's products. The turn carries every dependence between the groups. When the
// first starts row m, the second has finished output row m - 4 altogether and reads the rows between from m - 4 on; when
// the second starts output row m - 2, the first has written the rows up to m - 1.
#pragma once
#include <cstdint>

#include "conv_planes.cuh"

namespace emsr {

constexpr int kBlockProducts = 136;                // columns between the layers that a product has
constexpr int kBlockColumns = kBlockProducts - 2;  // of a strip
constexpr int kBehind = 3;                         // turns of the first group before the second has something to do

struct BlockImages {
  ImageView x, out;  // (B, 64, H, W), channels side by side, pixels on multiples of 16 bytes
};

template <class Group>
class ResidualStrip {
  // epilogues go by 16 pixels: they write up to 8 more than there are products
  static constexpr int kSpace = kBlockProducts + 8;
  using Input = Planes<kBlockProducts + 2, kSpace + 2>;
  using Between = Planes<kBlockProducts + 2, kSpace>;
  static constexpr uint32_t kInputs = 6;    // m - 3, whose result leaves from its place, to m + 2, which arrives
  static constexpr uint32_t kBetweens = 5;  // m - 4 to m - 1, read, and m, written

 public:
  static constexpr uint32_t kSharedBytes = kInputs * Input::kBytes + kBetweens * Between::kBytes;

  // The weight is that of the group's layer.
  EMSR_HOST_DEVICE ResidualStrip(const Group& group, const void* weight) : group_(group) {
    weights_.load(weight, group.thread);
  }

  // By the first group.
  EMSR_HOST_DEVICE void run_first(const BlockImages& images, const Segment& rows) const {
    for (int row = rows.first - 2; row <= rows.first; ++row) fetch(images, rows, row);
#pragma unroll 1
    for (int row = rows.first - 1; row <= rows.last; ++row) {
      group_.wait_copies();
      group_.publish();
      group_.wait_turn();
      const uint32_t near[3] = {input(row - 1), input(row), input(row + 1)};
      float sums[kBlockProducts / 2];
      start_products<Input>(group_, weights_, near, sums);
      group_.give_turn();
      if (row < rows.last) fetch(images, rows, row + 2);
      group_.wait_products(sums);
      relu(sums);
      mask(images, rows, row, sums);
      for_matrices<Between>(group_, between(row), sums, [&](uint32_t address, const float* of_lane) {
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) words[i] = group_.pack(of_lane[2 * i], of_lane[2 * i + 1]);
        group_.store_transposed(address, words);
      });
    }
    // the second has one more output row to do
    group_.publish();
    group_.wait_turn();
    group_.give_turn();
    group_.sync_block();
  }

  // By the second.
  EMSR_HOST_DEVICE void run_second(const BlockImages& images, const Segment& rows) const {
    for (int turn = 0; turn < kBehind; ++turn) {
      group_.give_turn();
      group_.wait_turn();
    }
    group_.give_turn();
#pragma unroll 1
    for (int row = rows.first; row < rows.last; ++row) {
      group_.wait_turn();
      const uint32_t near[3] = {between(row - 1), between(row), between(row + 1)};
      float sums[kBlockProducts / 2];
      start_products<Between>(group_, weights_, near, sums);
      if (row + 1 < rows.last) group_.give_turn();
      group_.wait_products(sums);
      // in the place of x, two columns to the right: x begins there
      const uint32_t place = input(row) + Input::offset(0, 2);
      for_matrices<Input>(group_, place, sums, [&](uint32_t address, const float* of_lane) {
        uint32_t words[4];
        group_.load_transposed(address, words);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float low, high;
          group_.unpack(words[i], low, high);
          words[i] = group_.pack(low + of_lane[2 * i], high + of_lane[2 * i + 1]);
        }
        group_.store_transposed(address, words);
      });
      group_.sync();
      write_row<Input, kBlockColumns>(group_, images.out, rows.b, row, rows.col, place);
    }
    group_.sync_block();
  }

 private:
  EMSR_HOST_DEVICE uint32_t input(int row) const {
    return group_.shared + static_cast<uint32_t>(row + 2) % kInputs * Input::kBytes;
  }
  EMSR_HOST_DEVICE uint32_t between(int row) const {
    return group_.shared + kInputs * Input::kBytes + static_cast<uint32_t>(row + 2) % kBetweens * Between::kBytes;
  }
  EMSR_HOST_DEVICE void fetch(const BlockImages& images, const Segment& rows, int row) const {
    fetch_row<Input>(group_, images.x, rows.b, row, rows.col - 2, input(row));
  }

  // The second layer's padding: zeros between the layers where the image has no pixel.
  EMSR_HOST_DEVICE void mask(const BlockImages& images, const Segment& rows, int row, float (&sums)[kBlockProducts / 2]) const {
    const int left = 1 - rows.col;  // of the image, in columns of the products
    int right = static_cast<int>(images.x.w) + left;
    if (row < 0 || row >= images.x.h) right = left;
    if (left <= 0 && right >= kBlockProducts) return;
    const int own = static_cast<int>(group_.thread % 4 * 2);
#pragma unroll
    for (int i = 0; i < kBlockProducts / 2; ++i) {
      const int col = i / 4 * 8 + own + i % 2;
      if (col < left || col >= right) sums[i] = 0;
    }
  }

  const Group& group_;
  LayerWeights weights_;
};

}  // namespace emsr
