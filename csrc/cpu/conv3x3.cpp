// 3x3 convolutions on a CPU, each with what follows it. Compiled once per instruction set.
//
// Many channels to many: Winograd's F(6x6, 3x3). A task is a group of tiles whose planes stay in scratch (about 200 KB;
// sums overwrite inputs): each pixel is read 1.78 times from the cache, written once.
// Few channels to many: the 9 neighbours of a run of pixels as a matrix [tap][pixel], times the weight. Many to one: dot products.
#include "conv3x3.h"

#include "epilogue.h"
#include "parallel.h"
#include "winograd.h"

namespace emsr {
namespace EMSR_ISA {
namespace {

constexpr int64_t kRun = 96;  // pixels of a row per task of the few-to-many kernel, a multiple of kRowStep
constexpr int kTogether = 4;  // pixels of a row that the many-to-one kernel sums at a time

bool few_inputs(int64_t inputs) { return inputs < 16; }

// Write the outputs of a tile from its 64 planes.
template <typename Epilogue>
void write_tile(const ImageView& out, const Tiles::Place& at, const Epilogue& epilogue, const float* sums, int64_t plane, bool streamed) {
  float* to = pixel(out, at.b, at.y, at.x);
  const float* other = epilogue.at(at.b, at.y, at.x);
  const int64_t sh = out.sh, sw = out.sw;
  for (int64_t first = 0; first < out.c; first += kLineVectors * kLanes<float>) {
    const auto put = [&](int y, int x, int channel, Vec<float> v) __attribute__((always_inline)) {
      const int64_t c = first + channel;
      write(to + y * sh + x * sw + c, epilogue.apply(v, other, y, x, c), streamed);
    };
    if (at.rows == kTile && at.cols == kTile) {
      transform_output_tile<kLineVectors>(sums + first, plane, put);
    } else {
      transform_output_tile<kLineVectors>(sums + first, plane, [&](int y, int x, int channel, Vec<float> v) {
        if (y < at.rows && x < at.cols) put(y, x, channel, v);
      });
    }
  }
}

template <typename Epilogue>
void winograd(const ImageView& x, const ImageView& out, const Epilogue& epilogue, const float* packed, int threads) {
  const Tiles tiles(x);
  const int64_t channels = x.c > out.c ? x.c : out.c, group = tiles_per_task(tiles, channels, kPlanes * channels, threads);
  const int64_t plane = group * channels + kPlaneGap;
  const bool streamed = may_stream(static_cast<float*>(out.data));
  parallel_for((tiles.count + group - 1) / group, threads, [&](int64_t task) {
    float* sums = static_cast<float*>(scratch(Scratch::kOwn, sizeof(float) * ((kPlanes + 1) * plane + kPlanes * x.c)));
    float* planes = sums + plane;
    float* border = planes + kPlanes * plane;
    const int64_t first = task * group, count = tiles.count - first < group ? tiles.count - first : group;
    transform_input_tiles(x, tiles, first, count, planes, plane, border);
    const PixelsAhead next(x, tiles, (task + threads) * group, group);  // threads take tasks in turn
    const auto multiply = [&](const auto&... ahead) {
      multiply_planes(planes, x.c, packed, out.c, sums, plane, count, ahead...);
    };
    if constexpr (Epilogue::kReadsOther) multiply(next, PixelsAhead(epilogue.other, tiles, first, count));
    else multiply(next);
    for (int64_t t = 0; t < count; ++t) write_tile(out, tiles.place(first + t), epilogue, sums + t * out.c, plane, streamed);
    finish_streaming();
  });
}

template <typename Epilogue>
void few_to_many(const ImageView& x, const ImageView& out, const Epilogue& epilogue, const float* packed, int threads) {
  const int64_t taps = 9 * x.c, runs = (x.w + kRun - 1) / kRun;
  const bool streamed = may_stream(static_cast<float*>(out.data));
  parallel_for(x.b * x.h * runs, threads, [&](int64_t task) {
    float* near = static_cast<float*>(scratch(Scratch::kOwn, sizeof(float) * kRun * (taps + out.c)));
    float* sums = near + kRun * taps;
    const int64_t b = task / (x.h * runs), y = task / runs % x.h, left = task % runs * kRun;
    const int64_t count = x.w - left < kRun ? x.w - left : kRun;
    std::memset(near, 0, sizeof(float) * kRun * taps);
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t from_y = y + tap % 9 / 3 - 1, shift = tap % 3 - 1;
      if (from_y < 0 || from_y >= x.h) continue;
      const float* row = pixel(x, b, from_y, left) + tap / 9 * x.sc;
      const int64_t begin = left + shift < 0 ? 1 : 0, end = left + count + shift > x.w ? count - 1 : count;
      float* to = near + tap * kRun;
      for (int64_t i = begin; i < end; ++i) to[i] = row[(i + shift) * x.sw];
    }
    product<float>(near, 1, kRun, (count + kRowStep - 1) / kRowStep * kRowStep, taps, packed, nullptr, out.c, sums);
    float* to = pixel(out, b, y, left);
    const float* other = epilogue.at(b, y, left);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t c = 0; c < out.c; c += kLanes<float>) {
        write(to + i * out.sw + c, epilogue.apply(load(sums + i * out.c + c), other, 0, i, c), streamed);
      }
    }
    finish_streaming();
  });
}

// `packed` holds the weight as [tap][input].
template <typename Epilogue>
void many_to_one(const ImageView& x, const ImageView& out, const Epilogue& epilogue, const float* packed, int threads) {
  // columns first, first + 1, ... of one row, whose taps from column tap_from on to before tap_to lie inside the image
  const auto sum_pixels = [&](auto together, int64_t b, int64_t y, int64_t first, int64_t tap_from, int64_t tap_to) {
    constexpr int kPixels = decltype(together)::kValue;
    Vec<float> sums[kPixels] = {};
    for (int64_t dy = y == 0 ? 1 : 0; dy < (y == x.h - 1 ? 2 : 3); ++dy) {
      for (int64_t dx = tap_from; dx < tap_to; ++dx) {
        const float* from = pixel(x, b, y + dy - 1, first + dx - 1);
        const float* weight = packed + (dy * 3 + dx) * x.c;
        for (int64_t c = 0; c < x.c; c += kLanes<float>) {
          const Vec<float> w = load(weight + c);
#pragma GCC unroll 4
          for (int i = 0; i < kPixels; ++i) sums[i] += w * load(from + i * x.sw + c);
        }
      }
    }
    const float* other = epilogue.at(b, y, first);
    float* to = pixel(out, b, y, first);
    for (int i = 0; i < kPixels; ++i) to[i * out.sw] = epilogue.apply_one(sum_of<float>(sums[i]), other, i);
  };
  parallel_for(x.b * x.h, threads, [&](int64_t task) {
    const int64_t b = task / x.h, y = task % x.h;
    for (int64_t col = 0; col < x.w;) {
      if (col > 0 && col + kTogether < x.w) {
        sum_pixels(Count<kTogether>{}, b, y, col, 0, 3);
        col += kTogether;
      } else {
        sum_pixels(Count<1>{}, b, y, col, col == 0 ? 1 : 0, col == x.w - 1 ? 2 : 3);
        ++col;
      }
    }
  });
}

}  // namespace

void conv3x3(const ImageView& x, const ImageView& out, const ImageView& other, const float* packed, Activation activation,
             Combine combine, int threads) {
  with_epilogue(activation, combine, other, [&](const auto& epilogue) {
    if (out.c == 1) many_to_one(x, out, epilogue, packed, threads);
    else if (few_inputs(x.c)) few_to_many(x, out, epilogue, packed, threads);
    else winograd(x, out, epilogue, packed, threads);
  });
}

}  // namespace EMSR_ISA
}  // namespace emsr
