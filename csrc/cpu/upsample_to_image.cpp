// Features to the HR pixels of an image by one 5x5 convolution, on a CPU. Compiled once per instruction set.
//
// A task is a row of LR pixels. Lanes are channels, accumulators the HR pixels of a few LR pixels side by side, read in
// place; those whose 5x5 window leaves the image are done one by one.
#include "upsample_to_image.h"

#include "parallel.h"
#include "winograd.h"

namespace emsr {
namespace EMSR_ISA {
namespace {

constexpr int64_t kTaps = 5, kMargin = kTaps / 2;

// The HR pixels of kPixels LR pixels side by side, out [pixel][phase]; `from` is their first one's first tap.
template <int kPixels, int kPhases>
void sum_taps(const float* from, int64_t row, int64_t col, int64_t channels, const float* weight, float* out) {
  Vec<float> sums[kPixels][kPhases] = {};
  for (int64_t tap = 0; tap < kTaps * kTaps; ++tap, weight += kPhases * channels) {
    const float* at = from + tap / kTaps * row + tap % kTaps * col;
    for (int64_t c = 0; c < channels; c += kLanes<float>) {
      Vec<float> values[kPixels];
#pragma GCC unroll 16
      for (int p = 0; p < kPixels; ++p) values[p] = load(at + p * col + c);
#pragma GCC unroll 16
      for (int phase = 0; phase < kPhases; ++phase) {
        const Vec<float> w = kept<float, (kPixels > 1)>(load(weight + phase * channels + c));
#pragma GCC unroll 16
        for (int p = 0; p < kPixels; ++p) sums[p][phase] += values[p] * w;
      }
    }
  }
  for (int p = 0; p < kPixels; ++p) {
    for (int phase = 0; phase < kPhases; ++phase) *out++ = sum_of<float>(sums[p][phase]);
  }
}

template <int kScale>
void run(const ImageView& x, const ImageView& out, const float* weight, int threads) {
  constexpr int kPhases = kScale * kScale;
  // accumulators, values and a weight fill 32 registers, or 16
  constexpr int kPixels = kColumnVectors == 4 ? 31 / (kPhases + 1) : kPhases < 8 ? 15 / (kPhases + 1) : 1;
  const int64_t variant = kTaps * kTaps * x.c * kPhases;
  parallel_for(x.b * x.h, threads, [&](int64_t task) {
    float* copy = static_cast<float*>(scratch(Scratch::kOwn, sizeof(float) * kTaps * kTaps * x.c));
    float phases[kPixels * kPhases];
    const int64_t b = task / x.h, y = task % x.h;
    const float* row_weight = weight + 4 * variant * ((y == 0 ? 1 : 0) + (y == x.h - 1 ? 2 : 0));
    for (int64_t first = 0; first < x.w;) {
      int64_t count = 1, row, col;
      const bool inside = y >= kMargin && y + kMargin < x.h && first >= kMargin && first + kPixels - 1 + kMargin < x.w;
      if (inside) {
        count = kPixels;
        sum_taps<kPixels, kPhases>(pixel(x, b, y - kMargin, first - kMargin), x.sh, x.sw, x.c, row_weight, phases);
      } else {
        const float* from = window_of(x, b, y - kMargin, first - kMargin, kTaps, copy, &row, &col);
        const float* w = row_weight + variant * ((first == 0 ? 1 : 0) + (first == x.w - 1 ? 2 : 0));
        sum_taps<1, kPhases>(from, row, col, x.c, w, phases);
      }
      for (int64_t p = 0; p < count; ++p) {
        float* to = pixel(out, b, y * kScale, (first + p) * kScale);
        for (int64_t i = 0; i < kPhases; ++i) to[i / kScale * out.sh + i % kScale * out.sw] = phases[p * kPhases + i];
      }
      first += count;
    }
  });
}

}  // namespace

void upsample_to_image(const ImageView& x, const ImageView& out, const float* weight, int64_t scale, int threads) {
  if (scale == 2) run<2>(x, out, weight, threads);
  else if (scale == 3) run<3>(x, out, weight, threads);
  else run<4>(x, out, weight, threads);
}

}  // namespace EMSR_ISA
}  // namespace emsr
