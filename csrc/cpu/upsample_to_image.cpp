// Features to the HR pixels of an image by one 5x5 convolution, on a CPU. Compiled once per instruction set.
//
// A task is a run of LR pixels of a row. Lanes are channels, accumulators one row of the HR pixels of a few LR pixels side by
// side, read in place: the weights of such a row stay in L1. LR pixels whose 5x5 window leaves the image are done one by one.
#include "upsample_to_image.h"

#include "parallel.h"
#include "winograd.h"

namespace emsr {
namespace EMSR_ISA {
namespace {

constexpr int64_t kTaps = 5, kMargin = kTaps / 2;
constexpr int64_t kRun = 96;  // LR pixels of a task: 5 rows of them stay in L2 while the rows of HR pixels are made

// kPhases HR pixels of each of kPixels LR pixels side by side, out [pixel][phase]; `from` is the first one's first tap, and
// `weight` has tap_weights floats for each tap.
template <int kPixels, int kPhases>
void sum_taps(const float* from, int64_t row, int64_t col, int64_t channels, const float* weight, int64_t tap_weights, float* out) {
  Vec<float> sums[kPixels][kPhases] = {};
  for (int64_t tap_y = 0; tap_y < kTaps; ++tap_y) {
    const float* at = from + tap_y * row;
    for (int64_t tap_x = 0; tap_x < kTaps; ++tap_x, at += col, weight += tap_weights) {
      for (int64_t c = 0; c < channels; c += kLanes<float>) {
        Vec<float> values[kPixels];
#pragma GCC unroll 16
        for (int p = 0; p < kPixels; ++p) values[p] = kept<float, (kPixels > 1)>(load(at + p * col + c));
#pragma GCC unroll 16
        for (int phase = 0; phase < kPhases; ++phase) {
          const Vec<float> w = kept<float, (kPixels > 1)>(load(weight + phase * channels + c));
#pragma GCC unroll 16
          for (int p = 0; p < kPixels; ++p) sums[p][phase] += values[p] * w;
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 16
    for (int phase = 0; phase < kPhases; ++phase) *out++ = sum_of<float>(sums[p][phase]);
  }
}

template <int kScale>
void run(const ImageView& x, const ImageView& out, const float* weight, int threads) {
  constexpr int kPhases = kScale * kScale;
  // the accumulators of a row of HR pixels, the LR pixels' values and a weight fill the registers
  constexpr int kPixels = (kRegisters - 1) / (kScale + 1);
  const int64_t tap_weights = kPhases * x.c, variant = kTaps * kTaps * tap_weights, runs = (x.w + kRun - 1) / kRun;
  parallel_for(x.b * x.h * runs, threads, [&](int64_t task) {
    float* copy = static_cast<float*>(scratch(Scratch::kOwn, sizeof(float) * kTaps * kTaps * x.c));
    const int64_t b = task / (x.h * runs), y = task / runs % x.h, left = task % runs * kRun;
    const int64_t right = x.w - left < kRun ? x.w : left + kRun;
    const float* row_weight = weight + 4 * variant * ((y == 0 ? 1 : 0) + (y == x.h - 1 ? 2 : 0));
    const auto one_by_one = [&](int64_t first, int64_t last) {
      for (; first < last; ++first) {
        int64_t row, col;
        float sums[kPhases];
        const float* from = window_of(x, b, y - kMargin, first - kMargin, kTaps, copy, &row, &col);
        const float* w = row_weight + variant * ((first == 0 ? 1 : 0) + (first == x.w - 1 ? 2 : 0));
        sum_taps<1, kPhases>(from, row, col, x.c, w, tap_weights, sums);
        float* to = pixel(out, b, y * kScale, first * kScale);
        for (int64_t i = 0; i < kPhases; ++i) to[i / kScale * out.sh + i % kScale * out.sw] = sums[i];
      }
    };
    // from `begin` to `end`, several at a time: their windows lie inside the image
    const int64_t begin = left < kMargin ? kMargin : left;
    int64_t end = right + kMargin > x.w ? x.w - kMargin : right;
    end = y < kMargin || y + kMargin >= x.h || end < begin ? begin : end - (end - begin) % kPixels;
    one_by_one(left, begin < right ? begin : right);
    for (int64_t i = 0; i < kScale; ++i) {
      for (int64_t first = begin; first < end; first += kPixels) {
        float sums[kPixels * kScale];
        const float* from = pixel(x, b, y - kMargin, first - kMargin);
        sum_taps<kPixels, kScale>(from, x.sh, x.sw, x.c, row_weight + i * kScale * x.c, tap_weights, sums);
        float* to = pixel(out, b, y * kScale + i, first * kScale);
        for (int64_t j = 0; j < kPixels * kScale; ++j) to[j * out.sw] = sums[j];
      }
    }
    one_by_one(end, right);
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
