// Small dense products, (rows, inputs) x (inputs, outputs), with the accumulators in registers.
#pragma once
#include "simd.h"

namespace emsr {
namespace EMSR_ISA {

constexpr int kRowStep = 6;  // rows a microkernel holds; callers pad their buffers to a multiple of it

// Vectors of outputs a microkernel holds: 6 x 4 accumulators fill 32 registers, 6 x 2 fill 16.
constexpr int kColumnVectors = kRegisters == 32 ? 4 : 2;

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

// Memory to ask for during a product, from each of these on: kAheadBytes for every kAheadInputs inputs of kRowStep rows. A
// few lines at a time, since many at once would keep the product's own loads waiting.
template <int kImages>
struct Ahead {
  const char* from[kImages ? kImages : 1];
};
constexpr int64_t kAheadInputs = 4, kAheadBytes = 64;

template <typename T, int V, bool kRelu, int kImages>
inline void product_block(const T* x, int64_t x_row, int64_t x_input, const T* packed, const T* bias, int64_t inputs, T* out, int64_t out_stride,
                          const Ahead<kImages>& ahead, int64_t ahead_offset) {
  Vec<T> sum[kRowStep][V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const Vec<T> start = bias ? load(bias + v * kLanes<T>) : all(T(0));
#pragma GCC unroll 8
    for (int r = 0; r < kRowStep; ++r) sum[r][v] = start;
  }
#pragma GCC unroll 1
  for (int64_t i = 0; i < inputs; ++i) {
    if (kImages > 0 && i % kAheadInputs == 0) {
#pragma GCC unroll 2
      for (int n = 0; n < kImages; ++n) __builtin_prefetch(ahead.from[n] + ahead_offset + i * (kAheadBytes / kAheadInputs));
    }
    Vec<T> w[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) w[v] = load(packed + (i * V + v) * kLanes<T>);
#pragma GCC unroll 8
    for (int r = 0; r < kRowStep; ++r) {
      const T value = x[r * x_row + i * x_input];
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
// rows % kRowStep == 0; out is dense, x has x_row values from row to row and x_input from input to input.
template <typename T, bool kRelu = false, int kImages = 0>
void product(const T* x, int64_t x_row, int64_t x_input, int64_t rows, int64_t inputs, const T* packed, const T* bias,
             int64_t outputs, T* out, const Ahead<kImages>& ahead = {}) {
  for (int64_t first = 0; first < outputs;) {
    const int vectors = first_block<T>(outputs - first);
    const auto block = [&](const auto& asked) __attribute__((always_inline)) {
      for (int64_t r = 0; r < rows; r += kRowStep) {
        const T* from = x + r * x_row;
        const T* start = bias ? bias + first : nullptr;
        T* to = out + r * outputs + first;
        const int64_t offset = r / kRowStep * inputs * (kAheadBytes / kAheadInputs);
        if (vectors == 4) product_block<T, 4, kRelu>(from, x_row, x_input, packed, start, inputs, to, outputs, asked, offset);
        else if (vectors == 2) product_block<T, 2, kRelu>(from, x_row, x_input, packed, start, inputs, to, outputs, asked, offset);
        else product_block<T, 1, kRelu>(from, x_row, x_input, packed, start, inputs, to, outputs, asked, offset);
      }
    };
    // the first block of columns goes over all rows, and so asks for everything
    if (first == 0) block(ahead);
    else block(Ahead<0>{});
    packed += vectors * kLanes<T> * inputs;
    first += vectors * kLanes<T>;
  }
}

// The same with a dense x.
template <typename T, bool kRelu = false, int kImages = 0>
void product(const T* x, int64_t rows, int64_t inputs, const T* packed, const T* bias, int64_t outputs, T* out,
             const Ahead<kImages>& ahead = {}) {
  product<T, kRelu>(x, inputs, 1, rows, inputs, packed, bias, outputs, out, ahead);
}

}  // namespace EMSR_ISA
}  // namespace emsr
