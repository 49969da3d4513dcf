// An à-trous tile: where it lies, and how its threads load, filter and write its pixels.
//
// A thread block owns some pixels of one channel. It keeps them and their halo in shared memory and filters them there,
// stage after stage: rows from `image` into `rows`, then columns back into `image`. Nothing here needs a GPU.
#pragma once
#include <cstdint>

#include "host_device.cuh"
#include "image_view.h"

namespace emsr {

// The tile of a block, in pixels and in shared memory.
template <int kLevels_>
struct AtrousTile {
  static constexpr int kLevels = kLevels_;
  static constexpr int kHalo = 2 << kLevels;  // pre-blur 2, then 2 + 4 + 8 + ...
  static constexpr int kOwnRows = kLevels < 4 ? 64 : 32;  // level 4 must fit the 99 KB of sm_86, sm_89 and sm_120
  static constexpr int kOwnCols = 64;
  static constexpr int kRows = kOwnRows + 2 * kHalo;
  static constexpr int kCols = kOwnCols + 2 * kHalo;
  // odd, so that 32 neighbouring rows lie in 32 different banks, as 32 neighbouring columns do
  static constexpr int kPitch = kCols + 1;
  static constexpr int kPlane = kRows * kPitch;
  static constexpr int kSharedBytes = 2 * kPlane * int{sizeof(float)};
  // four threads share a row in a row pass, a column in a column pass
  static constexpr int kParts = 4;
  static constexpr int kThreads = kParts * kCols;
  static_assert(kThreads % 32 == 0 && kThreads <= 1024 && kRows <= kCols && kRows % kParts == 0);
};

// Pre-blur (level 0) or smoothing (level >= 1): how far beyond the owned pixels it reads and writes.
template <class Tile_, int kLevel_, int kHaloIn_, int kHaloOut_>
struct AtrousStage {
  using Tile = Tile_;
  static constexpr int kLevel = kLevel_;
  static constexpr int kStep = kLevel == 0 ? 1 : 1 << (kLevel - 1);  // pixels between taps
  static constexpr int kHaloIn = kHaloIn_;
  static constexpr int kHaloOut = kHaloOut_;
  // A line is cut into runs of every kStep-th pixel: neighbours in a run share four of their five taps in registers.
  static constexpr int kRuns = kStep > Tile::kParts ? kStep : Tile::kParts;
  static constexpr int kTurns = kRuns / Tile::kParts;  // runs of one thread
  static constexpr int kRowRun = (Tile::kOwnCols + 2 * kHaloOut) / kRuns;     // pixels of a run along a row
  static constexpr int kColumnRun = (Tile::kOwnRows + 2 * kHaloOut) / kRuns;  // and along a column
  static_assert(kRowRun * kRuns == Tile::kOwnCols + 2 * kHaloOut && kRuns % kStep == 0);
  static_assert(kColumnRun * kRuns == Tile::kOwnRows + 2 * kHaloOut && kRuns % Tile::kParts == 0);
  static_assert(kColumnRun < 32 && kHaloIn == kHaloOut + 2 * kStep && kHaloIn <= Tile::kHalo);

  // First pixel of a run, counted from the tile's first row or column; the next ones are kStep apart.
  EMSR_HOST_DEVICE static int run_start(int run, int run_length) {
    return Tile::kHalo - kHaloOut + run / kStep * (run_length * kStep) + run % kStep;
  }
};

// Where a tile lies in the image, and which of its rows and columns are inside.
struct AtrousPlace {
  uint32_t b, c;                 // batch entry and channel of the single-channel side (x, or its gradient)
  int64_t row, col;              // of the tile's first pixel, halo included: negative at the image's border
  int top, bottom, left, right;  // the tile's rows [top, bottom) and columns [left, right) are inside the image

  EMSR_HOST_DEVICE bool has_row(int r) const { return r >= top && r < bottom; }
  EMSR_HOST_DEVICE bool has_col(int c) const { return c >= left && c < right; }
};

EMSR_HOST_DEVICE int clamp_to_tile(int64_t position, int size) {
  return position < 0 ? 0 : position > size ? size : static_cast<int>(position);
}

// Tiles of all channels of an image (B, C, H, W): the blocks of a launch, which CUDA limits to 2^31 - 1.
template <class Tile>
EMSR_HOST_DEVICE int64_t atrous_tiles(const ImageView& image) {
  const int64_t rows = (image.h + Tile::kOwnRows - 1) / Tile::kOwnRows;
  const int64_t cols = (image.w + Tile::kOwnCols - 1) / Tile::kOwnCols;
  return image.b * image.c * rows * cols;
}

// Place of tile number `tile`, counted along rows, then columns, then channels.
template <class Tile>
EMSR_HOST_DEVICE AtrousPlace atrous_place(const ImageView& image, uint32_t tile) {
  // fewer than 2^31 tiles: 32-bit divisions, a quarter of the work of 64-bit ones, are enough
  const auto rows = static_cast<uint32_t>((image.h + Tile::kOwnRows - 1) / Tile::kOwnRows);
  const auto cols = static_cast<uint32_t>((image.w + Tile::kOwnCols - 1) / Tile::kOwnCols);
  const uint32_t row_of_tiles = tile / cols, plane = row_of_tiles / rows;
  const int64_t row = int64_t{row_of_tiles % rows} * Tile::kOwnRows - Tile::kHalo;
  const int64_t col = int64_t{tile % cols} * Tile::kOwnCols - Tile::kHalo;
  const auto channels = static_cast<uint32_t>(image.c);
  return {plane / channels, plane % channels, row, col, clamp_to_tile(-row, Tile::kRows),
          clamp_to_tile(image.h - row, Tile::kRows), clamp_to_tile(-col, Tile::kCols),
          clamp_to_tile(image.w - col, Tile::kCols)};
}

// Offset, in elements, of the tile's pixel (row, col) in channel `channel` of a view.
EMSR_HOST_DEVICE int64_t pixel_offset(const ImageView& view, const AtrousPlace& at, int64_t channel, int row, int col) {
  return at.b * view.sb + channel * view.sc + (at.row + row) * view.sh + (at.col + col) * view.sw;
}

// Five taps of one filter, symmetric: outermost, next, centre.
template <int kLevel>
EMSR_HOST_DEVICE float five_taps(float a, float b, float c, float d, float e) {
  constexpr double kSum = 2 * 0.002566 + 2 * 0.1655 + 0.6638;
  constexpr float kOuter = kLevel == 0 ? float(0.002566 / kSum) : 1 / 16.f;
  constexpr float kNext = kLevel == 0 ? float(0.1655 / kSum) : 4 / 16.f;
  constexpr float kCentre = kLevel == 0 ? float(0.6638 / kSum) : 6 / 16.f;
  return kCentre * c + (kNext * (b + d) + kOuter * (a + e));
}

// Filters a run of kLength values, kStride floats apart, and hands each to put(index, filtered value).
template <int kLevel, int kLength, int kStride, class Put>
EMSR_HOST_DEVICE void filter_run(const float* from, Put put) {
  float v[kLength + 4];
#pragma unroll
  for (int k = 0; k < kLength + 4; ++k) v[k] = from[(k - 2) * kStride];
#pragma unroll
  for (int k = 0; k < kLength; ++k) put(k, five_taps<kLevel>(v[k], v[k + 1], v[k + 2], v[k + 3], v[k + 4]));
}

// Which of the up to 31 pixels first, first + kStep, ... lie in [begin, end), as bits: one instruction tests one.
template <int kStep>
EMSR_HOST_DEVICE uint32_t pixels_in_range(int first, int begin, int end) {
  const auto bits_before = [first](int limit) {
    const uint32_t count = limit <= first ? 0 : static_cast<uint32_t>(limit - first + kStep - 1) / kStep;
    return (uint32_t{1} << (count < 31 ? count : 31)) - 1;
  };
  return bits_before(end) & ~bits_before(begin);
}

// Reads channel `channel` of a view (B, *, H, W), times `sign`, into the tile, zeros outside the image.
template <typename T, class Tile>
EMSR_HOST_DEVICE void load_tile(const ImageView& from, const AtrousPlace& at, int64_t channel, float sign, float* image,
                                int thread) {
  const int col = thread % Tile::kCols, part = thread / Tile::kCols;
  const uint32_t inside = at.has_col(col) ? pixels_in_range<Tile::kParts>(part, at.top, at.bottom) : 0;
  const T* pixel = static_cast<const T*>(from.data) + pixel_offset(from, at, channel, part, col);
  const int64_t stride = Tile::kParts * from.sh;
  image += part * Tile::kPitch + col;
#pragma unroll 8
  for (int k = 0; k < Tile::kRows / Tile::kParts; ++k, pixel += stride) {
    image[k * Tile::kParts * Tile::kPitch] = inside >> k & 1 ? sign * static_cast<float>(*pixel) : 0.f;
  }
}

// Row pass: image -> rows. Neighbouring threads take neighbouring rows.
template <class Stage>
EMSR_HOST_DEVICE void filter_rows(const float* image, float* rows, int thread) {
  using Tile = typename Stage::Tile;
  const int row = thread % Tile::kRows, part = thread / Tile::kRows;
  const int margin = Tile::kHalo - Stage::kHaloIn;
  if (part >= Tile::kParts || row < margin || row >= Tile::kRows - margin) return;
#pragma unroll 1
  for (int turn = 0; turn < Stage::kTurns; ++turn) {
    const int first = row * Tile::kPitch + Stage::run_start(turn * Tile::kParts + part, Stage::kRowRun);
    filter_run<Stage::kLevel, Stage::kRowRun, Stage::kStep>(
        image + first, [&](int k, float filtered) { rows[first + k * Stage::kStep] = filtered; });
  }
}

// Column pass: calls visit(first row, column) for each of the thread's runs in columns inside the image. Neighbouring
// threads take neighbouring columns.
template <class Stage, class Visit>
EMSR_HOST_DEVICE void for_column_runs(const AtrousPlace& at, int thread, Visit visit) {
  using Tile = typename Stage::Tile;
  const int col = thread % Tile::kCols, part = thread / Tile::kCols;
  const int margin = Tile::kHalo - Stage::kHaloOut;
  if (col < margin || col >= Tile::kCols - margin || !at.has_col(col)) return;
#pragma unroll 1
  for (int turn = 0; turn < Stage::kTurns; ++turn) {
    visit(Stage::run_start(turn * Tile::kParts + part, Stage::kColumnRun), col);
  }
}

// Filters the column run that starts at `from`: rows -> put(index in the run, filtered value).
template <class Stage, class Put>
EMSR_HOST_DEVICE void filter_column_run(const float* from, Put put) {
  filter_run<Stage::kLevel, Stage::kColumnRun, Stage::kStep * Stage::Tile::kPitch>(from, put);
}

// Puts the zeros outside the image back, which a column run from row `first` has overwritten, so that the next stage
// sees them; only tiles at the upper and lower border have any. `pixel` is the run's first.
template <class Stage>
EMSR_HOST_DEVICE void clear_outside(const AtrousPlace& at, float* pixel, int first) {
  using Tile = typename Stage::Tile;
  if (at.top == 0 && at.bottom == Tile::kRows) return;
#pragma unroll 1
  for (int k = 0; k < Stage::kColumnRun; ++k) {
    if (!at.has_row(first + k * Stage::kStep)) pixel[k * Stage::kStep * Tile::kPitch] = 0;
  }
}

}  // namespace emsr
