// Small dense products, (rows, inputs) x (inputs, outputs), with the accumulators in registers.
#pragma once
#include "simd.h"

namespace emsr {
namespace EMSR_ISA {

constexpr int kRowStep = 6;  // rows a microkernel holds; callers pad their buffers to a multiple of it

// Vectors of outputs a microkernel holds: 6 x 4 accumulators fill 32 registers, 6 x 2 fill 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kColumnVectors = 4;
#else
constexpr int kColumnVectors = 2;
#endif

// Vectors in the first block of columns of a product with this many outputs.
template <typename T>
inline int first_block(int64_t outputs) {
  int vectors = kColumnVectors;
  while (vectors * kLanes<T> > outputs) vectors /= 2;
  return vectors;
}

// Write the (out, in) matrix `weight`, times `factor`, so that a microkernel reads it front to back:
// [block of columns][input][column in block]. `packed` takes outputs * inputs elements; outputs % kLanes == 0.
template <typename T>
void pack_weight(const T* weight, int64_t outputs, int64_t inputs, T factor, T* packed) {
  for (int64_t first = 0; first < outputs;) {
    const int64_t width = first_block<T>(outputs - first) * kLanes<T>;
    for (int64_t i = 0; i < inputs; ++i) {
      for (int64_t o = 0; o < width; ++o) *packed++ = factor * weight[(first + o) * inputs + i];
    }
    first += width;
  }
}

template <typename T, int V, bool kRelu>
inline void product_block(const T* x, int64_t x_stride, const T* packed, const T* bias, int64_t inputs, T* out, int64_t out_stride) {
  Vec<T> sum[kRowStep][V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const Vec<T> start = bias ? load(bias + v * kLanes<T>) : all(T(0));
#pragma GCC unroll 8
    for (int r = 0; r < kRowStep; ++r) sum[r][v] = start;
  }
#pragma GCC unroll 1
  for (int64_t i = 0; i < inputs; ++i) {
    Vec<T> w[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) w[v] = load(packed + (i * V + v) * kLanes<T>);
#pragma GCC unroll 8
    for (int r = 0; r < kRowStep; ++r) {
      const T value = x[r * x_stride + i];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] += value * w[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRowStep; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      store(out + r * out_stride + v * kLanes<T>, kRelu ? max_of<T>(all(T(0)), sum[r][v]) : sum[r][v]);
    }
  }
}

// out (rows, outputs) = x (rows, inputs) times the packed weight, plus bias (or nullptr), ReLU if asked for.
// rows % kRowStep == 0; both matrices dense.
template <typename T, bool kRelu = false>
void product(const T* x, int64_t rows, int64_t inputs, const T* packed, const T* bias, int64_t outputs, T* out) {
  for (int64_t first = 0; first < outputs;) {
    const int vectors = first_block<T>(outputs - first);
    for (int64_t r = 0; r < rows; r += kRowStep) {
      const T* from = x + r * inputs;
      const T* start = bias ? bias + first : nullptr;
      T* to = out + r * outputs + first;
      if (vectors == 4) product_block<T, 4, kRelu>(from, inputs, packed, start, inputs, to, outputs);
      else if (vectors == 2) product_block<T, 2, kRelu>(from, inputs, packed, start, inputs, to, outputs);
      else product_block<T, 1, kRelu>(from, inputs, packed, start, inputs, to, outputs);
    }
    packed += vectors * kLanes<T> * inputs;
    first += vectors * kLanes<T>;
  }
}

}  // namespace EMSR_ISA
}  // namespace emsr
