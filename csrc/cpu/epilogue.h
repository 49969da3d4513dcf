// What follows a convolution while its result is still in registers: an activation, then a second image.
#pragma once
#include "conv3x3.h"
#include "simd.h"

namespace emsr {
namespace EMSR_ISA {

template <int N>
struct Count {
  static constexpr int kValue = N;
};

// Slope 0.2 below zero. NaN goes through: see max_of.
inline Vec<float> leaky_relu(Vec<float> v) { return max_of<float>(0.2f * v, v); }

template <Activation kActivation, Combine kCombine>
struct Epilogue {
  static constexpr bool kReadsOther = kCombine != Combine::kNothing;
  const ImageView& other;

  // The second image's pixel that a block of outputs begins at.
  const float* at(int64_t b, int64_t y, int64_t x) const {
    if constexpr (kCombine == Combine::kNothing) return nullptr;
    else return static_cast<const float*>(other.data) + b * other.sb + y * other.sh + x * other.sw;
  }

  // The result for channels c, c + 1, ... of the pixel y rows and x columns behind `from`.
  inline __attribute__((always_inline)) Vec<float> apply(Vec<float> v, const float* from, int64_t y, int64_t x, int64_t c) const {
    if constexpr (kActivation == Activation::kRelu) v = max_of<float>(all(0.0f), v);
    if constexpr (kActivation == Activation::kLeakyRelu) v = leaky_relu(v);
    if constexpr (kCombine == Combine::kNothing) {
      return v;
    } else {
      const Vec<float> second = load(from + y * other.sh + x * other.sw + c);
      if constexpr (kCombine == Combine::kMask) return second <= 0 ? all(0.0f) : v;
      return kCombine == Combine::kResidual ? v + second : v * second + second;
    }
  }

  // The same for the only channel of the pixel x columns behind `from`.
  float apply_one(float v, const float* from, int64_t x) const {
    if constexpr (kActivation == Activation::kRelu) v = v < 0 ? 0 : v;
    if constexpr (kActivation == Activation::kLeakyRelu) v = v < 0 ? 0.2f * v : v;
    if constexpr (kCombine == Combine::kNothing) {
      return v;
    } else {
      const float second = from[x * other.sw];
      if constexpr (kCombine == Combine::kMask) return second <= 0 ? 0 : v;
      return kCombine == Combine::kResidual ? v + second : v * second + second;
    }
  }
};

// Calls body(epilogue) with the type of epilogue asked for. A gate and a mask have no activation.
template <typename Body>
void with_epilogue(Activation activation, Combine combine, const ImageView& other, const Body& body) {
  constexpr Activation none = Activation::kNone, relu = Activation::kRelu, leaky = Activation::kLeakyRelu;
  if (combine == Combine::kGate) {
    body(Epilogue<none, Combine::kGate>{other});
  } else if (combine == Combine::kMask) {
    body(Epilogue<none, Combine::kMask>{other});
  } else if (combine == Combine::kResidual) {
    if (activation == none) body(Epilogue<none, Combine::kResidual>{other});
    else if (activation == relu) body(Epilogue<relu, Combine::kResidual>{other});
    else body(Epilogue<leaky, Combine::kResidual>{other});
  } else {
    if (activation == none) body(Epilogue<none, Combine::kNothing>{other});
    else if (activation == relu) body(Epilogue<relu, Combine::kNothing>{other});
    else body(Epilogue<leaky, Combine::kNothing>{other});
  }
}

}  // namespace EMSR_ISA
}  // namespace emsr
