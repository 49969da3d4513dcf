// Weights of 3x3 convolutions in the order of the kernels in conv3x3.cpp. Compiled once per instruction set.
#include "conv3x3.h"
#include "parallel.h"
#include "winograd_weight.h"

namespace emsr {
namespace EMSR_ISA {
namespace {

constexpr int64_t kNear = 9;  // taps

// The weight's value at an output, an input and a tap, row by row.
float tap_of(const ImageView& weight, int64_t output, int64_t input, int64_t tap) {
  return *(pixel(weight, output, tap / 3, tap % 3) + input * weight.sc);
}

// The 64 matrices of the weight, computed in double and packed for multiply_planes. Lanes are outputs.
void transform_weight(const ImageView& weight, float* packed, int threads) {
  constexpr int64_t kHalf = kLanes<double>;
  typedef VectorOf<float, kLanes<double>> Floats;
  const int64_t outputs = weight.b, inputs = weight.c, pairs = outputs * inputs;
  const WeightTransform transform;
  const auto& g = transform.rows;
  int64_t offsets[kNear];
  for (int64_t tap = 0; tap < kNear; ++tap) offsets[tap] = tap / 3 * weight.sh + tap % 3 * weight.sw;
  parallel_for(inputs, threads, [&](int64_t input) {
    for (int64_t first = 0; first < outputs;) {
      const int64_t width = first_block<float>(outputs - first) * kLanes<float>;
      float* block = packed + first * inputs + input * width;
      for (int64_t o = 0; o < width; o += kHalf) {
        Vec<double> taps[kNear];
        const float* from = pixel(weight, first + o, 0, 0) + input * weight.sc;
        float near[kNear][kHalf];
        for (int64_t lane = 0; lane < kHalf; ++lane) {
#pragma GCC unroll 9
          for (int64_t tap = 0; tap < kNear; ++tap) near[tap][lane] = from[lane * weight.sb + offsets[tap]];
        }
#pragma GCC unroll 9
        for (int64_t tap = 0; tap < kNear; ++tap) {
          taps[tap] = __builtin_convertvector(*reinterpret_cast<const Floats::type*>(near[tap]), Vec<double>);
        }
        for (int y = 0; y < kTileIn; ++y) {
          Vec<double> row[3];
#pragma GCC unroll 3
          for (int x = 0; x < 3; ++x) row[x] = g[y][0] * taps[x] + g[y][1] * taps[3 + x] + g[y][2] * taps[6 + x];
#pragma GCC unroll 8
          for (int x = 0; x < kTileIn; ++x) {
            const Vec<double> value = g[x][0] * row[0] + g[x][1] * row[1] + g[x][2] * row[2];
            *reinterpret_cast<Floats::type*>(block + (y * kTileIn + x) * pairs + o) = __builtin_convertvector(value, Floats::value);
          }
        }
      }
      first += width;
    }
  });
}

}  // namespace

void conv3x3_pack(const ImageView& weight, float* packed, int threads) {
  const int64_t outputs = weight.b, inputs = weight.c;
  if (outputs == 1) {
    for (int64_t tap = 0; tap < kNear; ++tap) {
      for (int64_t i = 0; i < inputs; ++i) *packed++ = tap_of(weight, 0, i, tap);
    }
  } else if (inputs < 16) {
    float* dense = static_cast<float*>(scratch(Scratch::kShared, sizeof(float) * outputs * inputs * kNear));
    for (int64_t i = 0; i < outputs * inputs * kNear; ++i) {
      dense[i] = tap_of(weight, i / (inputs * kNear), i / kNear % inputs, i % kNear);
    }
    pack_weight(dense, outputs, inputs * kNear, 1.0f, packed);
  } else {
    transform_weight(weight, packed, threads);
  }
}

}  // namespace EMSR_ISA
}  // namespace emsr
