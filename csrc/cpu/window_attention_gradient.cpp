// Attention inside windows of 4x4 tokens, and its gradient, on a CPU. Compiled once per instruction set.
//
// A task is a row of windows. A window's queries, keys and values are copied twice: token by token, whose values the
// products take one by one, and channel by channel, whose 16 tokens are the lanes. So no sum runs over lanes.
#include "parallel.h"
#include "simd.h"
#include "window_attention.h"

namespace emsr {
namespace EMSR_ISA {
namespace {

// A window of an image (B, channels, H, W) whose channels lie side by side.
struct Window {
  const ImageView& image;
  int64_t b, y, x;

  float* token(int64_t i) const {
    return static_cast<float*>(image.data) + b * image.sb + (y + i / kWindow) * image.sh + (x + i % kWindow) * image.sw;
  }
  void read(float* tokens) const {
    for (int64_t i = 0; i < kTokens; ++i) std::memcpy(tokens + i * image.c, token(i), sizeof(float) * image.c);
  }
  void write(const float* tokens) const {
    for (int64_t i = 0; i < kTokens; ++i) std::memcpy(token(i), tokens + i * image.c, sizeof(float) * image.c);
  }
};

// One head of a window. Lanes are queries: `queries` is (head_dim, kTokens); keys and values are those of token 0, `row`
// floats from token to token.
struct Head {
  const float *queries, *keys, *values;
  int64_t row, dim;

  // The share that each key gets from the queries of a vector.
  void shares(int lane, Vec<float> (&share)[kTokens]) const {
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    for (int j = 0; j < kTokens; ++j) share[j] = all(0.0f);
    for (int64_t d = 0; d < dim; ++d) {
      const Vec<float> query = scale * load(queries + d * kTokens + lane);
      for (int j = 0; j < kTokens; ++j) share[j] += keys[j * row + d] * query;
    }
    Vec<float> highest = share[0], total = all(0.0f);
    for (int j = 1; j < kTokens; ++j) highest = max_of<float>(highest, share[j]);
    for (int j = 0; j < kTokens; ++j) {
      share[j] = exp_of(share[j] - highest);
      total += share[j];
    }
    const Vec<float> factor = 1.0f / total;
    for (int j = 0; j < kTokens; ++j) share[j] *= factor;
  }
};

// A vector of lanes of sum over tokens of by_token[token] * values[token * row + d], for every d, times `factor`.
void sum_tokens(const float* by_token, const float* values, int64_t row, int64_t dim, float factor, float* out) {
  for (int64_t d = 0; d < dim; ++d) {
    Vec<float> sum = all(0.0f);
    for (int64_t t = 0; t < kTokens; ++t) sum += load(by_token + t * kTokens) * values[t * row + d];
    store(out + d * kTokens, factor * sum);
  }
}

void attend_window(const Window& from, const Window& to, int64_t heads, float* memory) {
  const int64_t c = to.image.c, row = 3 * c, dim = c / heads;
  float* tokens = memory;
  float* channels = tokens + kTokens * row;
  float* attended = channels + kTokens * row;
  from.read(tokens);
  transpose_matrix<float>(tokens, row, kTokens, c, channels, kTokens);
  for (int64_t first = 0; first < c; first += dim) {
    const Head head = {channels + first * kTokens, tokens + c + first, tokens + 2 * c + first, row, dim};
    for (int lane = 0; lane < kTokens; lane += kLanes<float>) {
      Vec<float> share[kTokens];
      head.shares(lane, share);
      for (int64_t d = 0; d < dim; ++d) {
        Vec<float> sum = all(0.0f);
        for (int j = 0; j < kTokens; ++j) sum += share[j] * head.values[j * row + d];
        store(attended + (first + d) * kTokens + lane, sum);
      }
    }
  }
  transpose_matrix<float>(attended, kTokens, c, kTokens, tokens, c);
  to.write(tokens);
}

void attend_window_backward(const Window& from, const Window& grad, const Window& to, int64_t heads, float* memory) {
  const int64_t c = grad.image.c, row = 3 * c, dim = c / heads, square = kTokens * kTokens;
  float* tokens = memory;
  float* channels = tokens + kTokens * row;
  float* grads = channels + kTokens * row;        // token by token
  float* grad_channels = grads + kTokens * c;     // channel by channel
  float* shares = grad_channels + kTokens * c;    // (key, query), then the gradient of the scores, then both transposed
  float* scores = shares + square;
  float* shares_turned = scores + square;
  float* scores_turned = shares_turned + square;
  float* out = scores_turned + square;            // channel by channel
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  from.read(tokens);
  grad.read(grads);
  transpose_matrix<float>(tokens, row, kTokens, row, channels, kTokens);
  transpose_matrix<float>(grads, c, kTokens, c, grad_channels, kTokens);
  for (int64_t first = 0; first < c; first += dim) {
    const Head head = {channels + first * kTokens, tokens + c + first, tokens + 2 * c + first, row, dim};
    for (int lane = 0; lane < kTokens; lane += kLanes<float>) {
      Vec<float> share[kTokens], score[kTokens], mean = all(0.0f);
      head.shares(lane, share);
      for (int j = 0; j < kTokens; ++j) score[j] = all(0.0f);
      for (int64_t d = 0; d < dim; ++d) {
        const Vec<float> g = load(grad_channels + (first + d) * kTokens + lane);
        for (int j = 0; j < kTokens; ++j) score[j] += head.values[j * row + d] * g;
      }
      for (int j = 0; j < kTokens; ++j) mean += share[j] * score[j];
      for (int j = 0; j < kTokens; ++j) {
        store(shares + j * kTokens + lane, share[j]);
        store(scores + j * kTokens + lane, share[j] * (score[j] - mean));
      }
      sum_tokens(scores + lane, head.keys, row, dim, scale, out + first * kTokens + lane);
    }
    transpose_matrix<float>(shares, kTokens, kTokens, kTokens, shares_turned, kTokens);
    transpose_matrix<float>(scores, kTokens, kTokens, kTokens, scores_turned, kTokens);
    for (int lane = 0; lane < kTokens; lane += kLanes<float>) {
      sum_tokens(scores_turned + lane, tokens + first, row, dim, scale, out + (c + first) * kTokens + lane);
      sum_tokens(shares_turned + lane, grads + first, c, dim, 1.0f, out + (2 * c + first) * kTokens + lane);
    }
  }
  transpose_matrix<float>(out, kTokens, row, kTokens, tokens, row);
  to.write(tokens);
}

// body(b, y, x, memory) for every window; `memory` has `floats` floats.
template <typename Body>
void for_windows(const ImageView& image, int64_t floats, int threads, const Body& body) {
  const int64_t rows = image.h / kWindow;
  parallel_for(image.b * rows, threads, [&](int64_t task) {
    float* memory = static_cast<float*>(scratch(Scratch::kOwn, sizeof(float) * floats));
    for (int64_t x = 0; x < image.w; x += kWindow) body(task / rows, task % rows * kWindow, x, memory);
  });
}

}  // namespace

void attend_windows(const ImageView& qkv, const ImageView& out, int64_t heads, int threads) {
  for_windows(out, kTokens * 7 * out.c, threads, [&](int64_t b, int64_t y, int64_t x, float* memory) {
    attend_window({qkv, b, y, x}, {out, b, y, x}, heads, memory);
  });
}

void attend_windows_backward(const ImageView& qkv, const ImageView& grad, const ImageView& out, int64_t heads, int threads) {
  for_windows(grad, kTokens * 11 * grad.c + 4 * kTokens * kTokens, threads, [&](int64_t b, int64_t y, int64_t x, float* memory) {
    attend_window_backward({qkv, b, y, x}, {grad, b, y, x}, {out, b, y, x}, heads, memory);
  });
}

}  // namespace EMSR_ISA
}  // namespace emsr
