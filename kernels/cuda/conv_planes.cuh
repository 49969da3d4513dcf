// What the convolutions on Hopper's tensor cores share: rows of pixels in shared memory, weights in registers.
//
// A row of pixels lies in eight planes, one for each 8 of its 64 channels: [chunk][pixel][8 values = 16 bytes]. To a
// wgmma it is the second operand, K-major without swizzle: 8 pixels x 16 bytes are a core matrix of 128 contiguous bytes,
// the next 8 pixels follow (stride offset 128), the next 8 channels are a plane away (leading offset). A start address need
// be a multiple of 16 only, so each of the nine taps is the same row from another pixel on. The pitch is odd: the chunks
// of a pixel lie in different banks.
//
// The first operand is 64 output channels x 16 input channels, four registers of a thread: 36 of them are the whole layer,
// which stays in registers. The accumulators of a thread are channels of neighbouring pixels; ldmatrix and stmatrix,
// transposing, carry them to and from planes.
//
// `Group` is 128 threads with their instructions; tests/native runs this code on the CPU.
#pragma once
#include <cstdint>

#include "host_device.cuh"
#include "image_view.h"

namespace emsr {

constexpr int kConvChannels = 64;
constexpr uint32_t kChunks = kConvChannels / 8;
constexpr int kSteps = 9 * kConvChannels / 16;  // products of a row: taps times channels by sixteens
constexpr uint32_t kGroupThreads = 128;
constexpr int kPixelsAtOnce = kGroupThreads / kChunks;  // that a group copies: 8 threads to a pixel

struct alignas(16) Chunk {
  uint32_t word[4];
};

// A row of kPixels pixels in planes, with space for kSpace.
template <int kPixels_, int kSpace = kPixels_>
struct Planes {
  static constexpr int kPixels = kPixels_;
  static constexpr uint32_t kPlane = 16 * (kSpace | 1);
  static_assert(kSpace >= kPixels);
  static constexpr uint32_t kBytes = kChunks * kPlane;

  EMSR_HOST_DEVICE static uint32_t offset(uint32_t chunk, uint32_t pixel) { return chunk * kPlane + 16 * pixel; }

  // Of the matrix that starts at a shared-memory address: 8 pixels are 128 bytes, 8 channels a plane.
  EMSR_HOST_DEVICE static uint64_t descriptor(uint32_t address) {
    return uint64_t{address >> 4} | uint64_t{kPlane >> 4} << 16 | uint64_t{128 >> 4} << 32;
  }
};

// The rows that a block works on, one below the other: in one image, from column `col` on.
struct Segment {
  int64_t b;
  int first, last, col;
};

EMSR_HOST_DEVICE int64_t strip_count(const ImageView& x, int columns) { return (x.w + columns - 1) / columns; }

// Calls run(segment) for the share of one of `blocks` blocks: of all rows of all strips of `columns` columns, an equal
// number each, whether or not a strip ends among them.
template <class Run>
EMSR_HOST_DEVICE void for_segments(const ImageView& x, int columns, int64_t block, int64_t blocks, Run run) {
  const int64_t strips = strip_count(x, columns), total = x.b * strips * x.h;
  const int64_t end = total * (block + 1) / blocks;
#pragma unroll 1
  for (int64_t at = total * block / blocks; at < end;) {
    const int64_t strip = at / x.h, top = strip * x.h;
    const int first = static_cast<int>(at - top);
    at = end < top + x.h ? end : top + x.h;
    run(Segment{strip / strips, first, static_cast<int>(at - top), static_cast<int>(strip % strips) * columns});
  }
}

// Starts to copy a row's pixels, from column `col` on, to the planes at `to`; zeros where there is no pixel.
template <class Rows, class Group>
EMSR_HOST_DEVICE void fetch_row(const Group& group, const ImageView& x, int64_t b, int row, int col, uint32_t to) {
  const uint32_t chunk = group.thread % kChunks, first = group.thread / kChunks;
  // a row outside the image has no columns
  const uint32_t width = row >= 0 && row < x.h ? static_cast<uint32_t>(x.w) : 0;
  col += static_cast<int>(first);
  const auto* image = static_cast<const uint16_t*>(x.data);
  const uint16_t* from = image + b * x.sb + row * x.sh + col * x.sw + chunk * 8;
  to += Rows::offset(chunk, first);
#pragma unroll
  for (int i = 0; i < Rows::kPixels; i += kPixelsAtOnce) {
    // unsigned, a column left of the image is far beyond its right border
    const bool exists = static_cast<uint32_t>(col + i) < width;
    if (i + kPixelsAtOnce <= Rows::kPixels || static_cast<int>(first) + i < Rows::kPixels) {
      group.copy16(to + 16 * i, exists ? from + i * x.sw : image, exists);
    }
  }
}

// Writes the planes at `from`, kColumns pixels, to a row of the image from column `col` on, as far as it has pixels.
template <class Rows, int kColumns, class Group>
EMSR_HOST_DEVICE void write_row(const Group& group, const ImageView& out, int64_t b, int row, int col, uint32_t from) {
  const uint32_t chunk = group.thread % kChunks, first = group.thread / kChunks;
  const int end = static_cast<int>(out.w) - col < kColumns ? static_cast<int>(out.w) - col : kColumns;
  col += static_cast<int>(first);
  uint16_t* to = static_cast<uint16_t*>(out.data) + b * out.sb + row * out.sh + col * out.sw + chunk * 8;
  from += Rows::offset(chunk, first);
#pragma unroll
  for (int i = 0; i < kColumns; i += kPixelsAtOnce) {
    if (static_cast<int>(first) + i < end) group.write16(to + i * out.sw, group.load16(from + 16 * i));
  }
}

// A layer (64, 3, 3, 64) as the first operand of 36 products. Lane 4 g + t of warp w holds output channels 16 w + g and
// + 8, input channels 2 t and 2 t + 1, and + 8, of each sixteen.
struct LayerWeights {
  uint32_t word[kSteps][4];

  EMSR_HOST_DEVICE void load(const void* weight, uint32_t thread) {
    const uint32_t output = thread / 32 * 16 + thread % 32 / 4;
    const uint32_t* from = static_cast<const uint32_t*>(weight) + output * (9 * kConvChannels / 2) + thread % 4;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) word[step][i] = from[i % 2 * 8 * (9 * kConvChannels / 2) + step * 8 + i / 2 * 4];
    }
  }
};

// Starts sums = the convolution at N pixels, whose row above, own row and row below lie in the planes at `rows`, from
// one column to the left on. The sums may be used behind group.wait_products(sums).
template <class Rows, class Group, int kSums>
EMSR_HOST_DEVICE void start_products(const Group& group, const LayerWeights& weights, const uint32_t (&rows)[3],
                                     float (&sums)[kSums]) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) sums[i] = 0;
  group.begin_products(sums);
#pragma unroll
  for (int ky = 0; ky < 3; ++ky) {
    const uint64_t row = Rows::descriptor(rows[ky]);
#pragma unroll
    for (int kx = 0; kx < 3; ++kx) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        group.product(sums, weights.word[(3 * ky + kx) * 4 + c], row + Rows::offset(2 * c, kx) / 16);
      }
    }
  }
  group.end_products();
}

// NaN stays NaN.
template <int kSums>
EMSR_HOST_DEVICE void relu(float (&sums)[kSums]) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) sums[i] = sums[i] < 0 ? 0 : sums[i];
}
template <int kSums>
EMSR_HOST_DEVICE void leaky_relu(float (&sums)[kSums]) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) sums[i] = sums[i] < 0 ? 0.2f * sums[i] : sums[i];
}

// Calls visit(address, sums) for each 16 pixels of a warp's 16 channels: four matrices of 8 pixels x 8 channels, two sums
// of each. Matrix i is chunk 2 w + i % 2 of the planes at `planes`, pixels from 8 * (i / 2) on. The address is this lane's
// for ldmatrix and stmatrix: row l % 8 of matrix l / 8 is that of lane l. Behind an odd number of eights, zeros go to the
// space that the planes must have there.
template <class Rows, class Group, int kSums, class Visit>
EMSR_HOST_DEVICE void for_matrices(const Group& group, uint32_t planes, float (&sums)[kSums], Visit visit) {
  const uint32_t lane = group.thread % 32;
  planes += Rows::offset(group.thread / 32 * 2 + lane / 8 % 2, lane / 16 * 8 + lane % 8);
#pragma unroll
  for (int i = 0; i < kSums / 8; ++i) visit(planes + 256 * i, sums + 8 * i);
  if constexpr (kSums % 8 != 0) {
    const float last[8] = {sums[kSums - 4], sums[kSums - 3], sums[kSums - 2], sums[kSums - 1], 0, 0, 0, 0};
    visit(planes + 256 * (kSums / 8), last);
  }
}

}  // namespace emsr
