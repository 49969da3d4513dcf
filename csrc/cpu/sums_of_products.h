// Sums over many rows of products of two values of each: the gradients of weights.
#pragma once
#include "product.h"

namespace emsr {
namespace EMSR_ISA {

// kRows x V vectors of sums += x^T y over `count` rows, x_row and y_row values from row to row. The rows are summed before
// they are added, so that long sums round less.
template <int kRows, int V>
inline __attribute__((always_inline)) void add_products(const float* x, int64_t x_row, const float* y, int64_t y_row, int64_t count,
                                                        float* sums, int64_t sums_row) {
  Vec<float> sum[kRows][V] = {};
#pragma GCC unroll 1
  for (int64_t t = 0; t < count; ++t, x += x_row, y += y_row) {
    Vec<float> values[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) values[v] = load(y + v * kLanes<float>);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] += x[r] * values[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      float* to = sums + r * sums_row + v * kLanes<float>;
      store(to, load(to) + sum[r][v]);
    }
  }
}

// Sums (rows, cols) += x^T y over `count` rows of x, (count, rows), and y, (count, cols), all dense; both are multiples of 16.
inline void add_products(const float* x, int64_t rows, const float* y, int64_t cols, int64_t count, float* sums) {
  for (int64_t first = 0; first < cols;) {
    const int vectors = first_block<float>(cols - first);
    const auto block = [&](auto width) __attribute__((always_inline)) {
      constexpr int V = decltype(width)::value;
      int64_t row = 0;
      for (; row + kRowStep <= rows; row += kRowStep) {
        add_products<kRowStep, V>(x + row, rows, y + first, cols, count, sums + row * cols + first, cols);
      }
      if (rows - row == 4) add_products<4, V>(x + row, rows, y + first, cols, count, sums + row * cols + first, cols);
      if (rows - row == 2) add_products<2, V>(x + row, rows, y + first, cols, count, sums + row * cols + first, cols);
    };
    if (vectors == 4) block(std::integral_constant<int, 4>{});
    else if (vectors == 2) block(std::integral_constant<int, 2>{});
    else block(std::integral_constant<int, 1>{});
    first += vectors * kLanes<float>;
  }
}

}  // namespace EMSR_ISA
}  // namespace emsr
