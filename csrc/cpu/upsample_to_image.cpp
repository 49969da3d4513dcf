// Features to the HR pixels of an image by one 5x5 convolution, on a CPU. Compiled once per instruction set.
//
// A task is a row of LR pixels. Lanes are the HR pixels of an LR pixel, rows of a microkernel are LR pixels side by side,
// read in place; those whose 5x5 window leaves the image are done one by one.
#include "upsample_to_image.h"

#include "parallel.h"
#include "winograd.h"

namespace emsr {
namespace EMSR_ISA {
namespace {

constexpr int64_t kTaps = 5, kMargin = kTaps / 2;

// The HR pixels of kPixels LR pixels side by side, out [pixel][kMaxPhases]; `from` is their first one's first tap.
template <int kPixels, int kVectors>
void sum_taps(const float* from, int64_t row, int64_t col, int64_t channels, const float* weight, float* out) {
  for (int64_t tap_row = 0; tap_row < kTaps; ++tap_row) {
    Vec<float> sums[kPixels][kVectors] = {};
    for (int64_t tap_col = 0; tap_col < kTaps; ++tap_col) {
      const float* at = from + tap_row * row + tap_col * col;
#pragma GCC unroll 1
      for (int64_t c = 0; c < channels; ++c, weight += kMaxPhases) {
        Vec<float> w[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) w[v] = load(weight + v * kLanes<float>);
#pragma GCC unroll 16
        for (int p = 0; p < kPixels; ++p) {
          const float value = at[p * col + c];
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) sums[p][v] += value * w[v];
        }
      }
    }
    // row by row, so that no sum runs over all 25 * channels products
    for (int p = 0; p < kPixels; ++p) {
      for (int v = 0; v < kVectors; ++v) {
        float* to = out + p * kMaxPhases + v * kLanes<float>;
        store(to, tap_row == 0 ? sums[p][v] : sums[p][v] + load(to));
      }
    }
  }
}

template <int kVectors>
void run(const ImageView& x, const ImageView& out, const float* weight, int64_t scale, int threads) {
  constexpr int kPixels = 12 / kVectors;  // accumulators enough to hide the latency of an addition
  const int64_t variant = kTaps * kTaps * x.c * kMaxPhases;
  parallel_for(x.b * x.h, threads, [&](int64_t task) {
    float* copy = static_cast<float*>(scratch(Scratch::kOwn, sizeof(float) * kTaps * kTaps * x.c));
    float phases[kPixels * kMaxPhases];
    const int64_t b = task / x.h, y = task % x.h;
    const float* row_weight = weight + 4 * variant * ((y == 0 ? 1 : 0) + (y == x.h - 1 ? 2 : 0));
    for (int64_t first = 0; first < x.w;) {
      int64_t count = 1, row, col;
      const bool inside = y >= kMargin && y + kMargin < x.h && first >= kMargin && first + kPixels - 1 + kMargin < x.w;
      if (inside) {
        count = kPixels;
        sum_taps<kPixels, kVectors>(pixel(x, b, y - kMargin, first - kMargin), x.sh, x.sw, x.c, row_weight, phases);
      } else {
        const float* from = window_of(x, b, y - kMargin, first - kMargin, kTaps, copy, &row, &col);
        const float* w = row_weight + variant * ((first == 0 ? 1 : 0) + (first == x.w - 1 ? 2 : 0));
        sum_taps<1, kVectors>(from, row, col, x.c, w, phases);
      }
      for (int64_t p = 0; p < count; ++p) {
        float* to = pixel(out, b, y * scale, (first + p) * scale);
        for (int64_t i = 0; i < scale * scale; ++i) to[i / scale * out.sh + i % scale * out.sw] = phases[p * kMaxPhases + i];
      }
      first += count;
    }
  });
}

}  // namespace

void upsample_to_image(const ImageView& x, const ImageView& out, const float* weight, int64_t scale, int threads) {
  const int64_t vectors = (scale * scale + kLanes<float> - 1) / kLanes<float>;
  constexpr int64_t kMost = kMaxPhases / kLanes<float>;
  if (vectors == 1) return run<1>(x, out, weight, scale, threads);
  if constexpr (kMost >= 2) {
    if (vectors == 2) return run<2>(x, out, weight, scale, threads);
  }
  if constexpr (kMost >= 4) {
    if (vectors == 3) return run<3>(x, out, weight, scale, threads);
    run<4>(x, out, weight, scale, threads);
  }
}

}  // namespace EMSR_ISA
}  // namespace emsr
