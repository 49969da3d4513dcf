// Linear layers on tokens, and the gradients of their weights, on a CPU. Compiled once per instruction set.
#include "parallel.h"
#include "sums_of_products.h"
#include "window_attention.h"

namespace emsr {
namespace EMSR_ISA {
namespace {

constexpr int64_t kRows = 192;  // tokens a task, a multiple of kRowStep; a task's stay in the cache

template <bool kRelu>
void run(const float* x, int64_t tokens, int64_t inputs, const float* packed, const float* bias, int64_t outputs, float* out,
         int threads) {
  parallel_for((tokens + kRows - 1) / kRows, threads, [&](int64_t task) {
    const int64_t first = task * kRows, count = tokens - first < kRows ? tokens - first : kRows;
    const int64_t whole = count / kRowStep * kRowStep;
    product<float, kRelu>(x + first * inputs, whole, inputs, packed, bias, outputs, out + first * outputs);
    if (whole == count) return;
    // the last few, filled up
    float* rows = static_cast<float*>(scratch(Scratch::kOwn, sizeof(float) * kRowStep * (inputs + outputs)));
    float* results = rows + kRowStep * inputs;
    std::memset(rows, 0, sizeof(float) * kRowStep * inputs);
    std::memcpy(rows, x + (first + whole) * inputs, sizeof(float) * (count - whole) * inputs);
    product<float, kRelu>(rows, kRowStep, inputs, packed, bias, outputs, results);
    std::memcpy(out + (first + whole) * outputs, results, sizeof(float) * (count - whole) * outputs);
  });
}

}  // namespace

void linear(const float* x, int64_t tokens, int64_t inputs, const float* weight, const float* bias, int64_t outputs, bool relu,
            float* out, int threads) {
  float* packed = static_cast<float*>(scratch(Scratch::kShared, sizeof(float) * outputs * inputs));
  pack_weight(weight, outputs, inputs, 1.0f, packed);
  if (relu) run<true>(x, tokens, inputs, packed, bias, outputs, out, threads);
  else run<false>(x, tokens, inputs, packed, bias, outputs, out, threads);
}

void linear_weight_gradient(const float* x, const float* grad, int64_t tokens, int64_t inputs, int64_t outputs, float* out,
                            int threads) {
  const int64_t blocks = (tokens + kRows - 1) / kRows, share = (blocks + threads - 1) / threads * kRows;
  const int64_t shares = (tokens + share - 1) / share, floats = inputs * outputs;
  // the first share's sums are written where the result is wanted
  float* others = static_cast<float*>(scratch(Scratch::kShared, sizeof(float) * shares * floats));
  parallel_for(shares, threads, [&](int64_t task) {
    float* sums = task ? others + task * floats : out;
    const int64_t last = (task + 1) * share < tokens ? (task + 1) * share : tokens;
    std::memset(sums, 0, sizeof(float) * floats);
    for (int64_t first = task * share; first < last; first += kRows) {
      const int64_t count = last - first < kRows ? last - first : kRows;
      add_products(grad + first * outputs, outputs, x + first * inputs, inputs, count, sums);
    }
  });
  for (int64_t s = 1; s < shares; ++s) {
    for (int64_t i = 0; i < floats; ++i) out[i] += others[s * floats + i];
  }
}

}  // namespace EMSR_ISA
}  // namespace emsr
