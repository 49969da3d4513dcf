// The pre-norm window transformer block on a CPU. Compiled once per instruction set.
//
// A task is a group of windows: gather and normalise their tokens, project to queries, keys and values, attend, project
// back, then finish every pixel that takes its result from these windows: skip, norm, MLP, skip. All of it stays in
// scratch (about 250 KB at 64 float channels); each pixel is read twice and written once.
#include "window_attention.h"

#include "parallel.h"
#include "product.h"

namespace emsr {
namespace EMSR_ISA {
namespace {

constexpr int64_t kGroup = 6;                      // windows per task
constexpr int64_t kGroupTokens = kGroup * kTokens;  // 96, a multiple of kRowStep

template <typename T>
struct Layer {
  const T* packed;
  const T* bias;
};

// The block's parameters in the layout the products read, packed once per call.
template <typename T>
struct Packed {
  Layer<T> query, key, value, proj, fc1, fc2;
  const T *norm1_weight, *norm1_bias, *norm2_weight, *norm2_bias;
  int64_t channels, heads, hidden;

  Packed(const WindowAttentionWeights& w, int64_t c)
      : norm1_weight(static_cast<const T*>(w.norm1_weight)), norm1_bias(static_cast<const T*>(w.norm1_bias)),
        norm2_weight(static_cast<const T*>(w.norm2_weight)), norm2_bias(static_cast<const T*>(w.norm2_bias)),
        channels(c), heads(w.heads), hidden(w.hidden) {
    T* memory = static_cast<T*>(scratch(Scratch::kShared, sizeof(T) * (4 * c * c + 2 * c * hidden)));
    const auto pack = [&](const void* weight, int64_t outputs, int64_t inputs, double factor, const void* bias) {
      T* packed = memory;
      memory += outputs * inputs;
      pack_weight(static_cast<const T*>(weight), outputs, inputs, T(factor), packed);
      return Layer<T>{packed, static_cast<const T*>(bias)};
    };
    const T* qkv = static_cast<const T*>(w.qkv_weight);
    // the attention's scale goes into the queries
    query = pack(qkv, c, c, 1 / std::sqrt(static_cast<double>(c / heads)), nullptr);
    key = pack(qkv + c * c, c, c, 1, nullptr);
    value = pack(qkv + 2 * c * c, c, c, 1, nullptr);
    proj = pack(w.proj_weight, c, c, 1, w.proj_bias);
    fc1 = pack(w.fc1_weight, hidden, c, 1, w.fc1_bias);
    fc2 = pack(w.fc2_weight, c, hidden, 1, w.fc2_bias);
  }
};

// Normalise kTogether tokens, each from x[n] to out[n]: sums over lanes wait for each other, those of several tokens do not.
template <int kTogether, typename T>
void layer_norm(const T* const* x, const T* weight, const T* bias, int64_t channels, T* const* out) {
  Vec<T> sum[kTogether] = {}, squares[kTogether] = {};
  T mean[kTogether], scale[kTogether];
  for (int64_t i = 0; i < channels; i += kLanes<T>) {
#pragma GCC unroll 4
    for (int n = 0; n < kTogether; ++n) sum[n] += load(x[n] + i);
  }
#pragma GCC unroll 4
  for (int n = 0; n < kTogether; ++n) mean[n] = sum_of<T>(sum[n]) / channels;
  for (int64_t i = 0; i < channels; i += kLanes<T>) {
#pragma GCC unroll 4
    for (int n = 0; n < kTogether; ++n) {
      const Vec<T> centred = load(x[n] + i) - mean[n];
      squares[n] += centred * centred;
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < kTogether; ++n) scale[n] = 1 / std::sqrt(sum_of<T>(squares[n]) / channels + T(1e-5));
  for (int64_t i = 0; i < channels; i += kLanes<T>) {
    const Vec<T> w = load(weight + i), b = load(bias + i);
#pragma GCC unroll 4
    for (int n = 0; n < kTogether; ++n) store(out[n] + i, (load(x[n] + i) - mean[n]) * scale[n] * w + b);
  }
}

template <typename T>
void layer_norms(const T* const* x, const T* weight, const T* bias, int64_t channels, T* const* out, int64_t count) {
  for (int64_t n = 0; n < count;) {
    if (n + 4 <= count) {
      layer_norm<4>(x + n, weight, bias, channels, out + n);
      n += 4;
    } else {
      layer_norm<1>(x + n, weight, bias, channels, out + n);
      ++n;
    }
  }
}

// Softmax attention of one head over one window. Lanes are query tokens: q and out point at the head's first channel,
// (head_dim, kTokens), and may be the same; k and v at the head's first channel of token 0, `channels` from token to token.
// Keys that no image row or column stands behind take no part.
template <typename T>
void attend_head(const T* q, const T* k, const T* v, const bool* present, int64_t channels, int64_t head_dim, T* out) {
  for (int lane = 0; lane < kTokens; lane += kLanes<T>) {
    Vec<T> scores[kTokens];
    for (int j = 0; j < kTokens; ++j) scores[j] = k[j * channels] * load(q + lane);
    for (int64_t d = 1; d < head_dim; ++d) {
      const Vec<T> query = load(q + d * kTokens + lane);
      for (int j = 0; j < kTokens; ++j) scores[j] += k[j * channels + d] * query;
    }
    Vec<T> highest = all(T(-INFINITY));
    for (int j = 0; j < kTokens; ++j) {
      if (present[j]) highest = max_of<T>(highest, scores[j]);
    }
    Vec<T> total = all(T(0));
    for (int j = 0; j < kTokens; ++j) {
      scores[j] = present[j] ? exp_of(scores[j] - highest) : all(T(0));
      total += scores[j];
    }
    const Vec<T> share = T(1) / total;
    for (int64_t d = 0; d < head_dim; ++d) {
      Vec<T> sum = all(T(0));
      for (int j = 0; j < kTokens; ++j) sum += scores[j] * v[j * channels + d];
      store(out + d * kTokens + lane, sum * share);
    }
  }
}

// Buffers of one thread.
template <typename T>
struct Workspace {
  T *tokens, *query, *key, *value, *attended, *hidden, *transposed;

  explicit Workspace(const Packed<T>& p) {
    const int64_t plane = kGroupTokens * p.channels;
    T* memory = static_cast<T*>(scratch(Scratch::kOwn, sizeof(T) * (5 * plane + kGroupTokens * p.hidden + kTokens * p.channels)));
    tokens = memory;
    query = tokens + plane;
    key = query + plane;
    value = key + plane;
    attended = value + plane;
    hidden = attended + plane;
    transposed = hidden + kGroupTokens * p.hidden;
  }
};

template <typename T>
class Block {
 public:
  Block(const ImageView& x, const ImageView& out, const WindowGrid& grid, const Packed<T>& packed, int threads)
      : x_(x), out_(out), grid_(grid), p_(packed), threads_(threads), windows_across_(grid.token_cols / kWindow),
        windows_(grid.token_rows / kWindow * windows_across_), streamed_(may_stream(static_cast<T*>(out.data))) {}

  int64_t groups() const { return (windows_ + kGroup - 1) / kGroup; }

  void run(int64_t b, int64_t group) const {
    const Workspace<T> s(p_);
    const int64_t first = group * kGroup, count = first + kGroup < windows_ ? kGroup : windows_ - first;
    bool present[kGroupTokens];
    gather(b, first, count, s.tokens, present);
    const int64_t next = first + threads_ * kGroup;  // threads take tasks in turn
    product(s.tokens, kGroupTokens, p_.channels, p_.query.packed, p_.query.bias, p_.channels, s.query, ahead(b, next, 0));
    product(s.tokens, kGroupTokens, p_.channels, p_.key.packed, p_.key.bias, p_.channels, s.key, ahead(b, next, 1));
    product(s.tokens, kGroupTokens, p_.channels, p_.value.packed, p_.value.bias, p_.channels, s.value, ahead(b, next, 2));
    const int64_t head_dim = p_.channels / p_.heads;
    for (int64_t w = 0; w < count; ++w) {
      const int64_t at = w * kTokens * p_.channels;
      transpose_matrix(s.query + at, p_.channels, kTokens, p_.channels, s.transposed, kTokens);
      for (int64_t h = 0; h < p_.heads; ++h) {
        const int64_t first_channel = h * head_dim;
        T* lanes = s.transposed + first_channel * kTokens;
        attend_head(lanes, s.key + at + first_channel, s.value + at + first_channel, present + w * kTokens, p_.channels, head_dim, lanes);
      }
      transpose_matrix(s.transposed, kTokens, p_.channels, kTokens, s.tokens + at, p_.channels);
    }
    product(s.tokens, kGroupTokens, p_.channels, p_.proj.packed, p_.proj.bias, p_.channels, s.attended, ahead(b, next, 3));
    finish(b, first, count, s);
    finish_streaming();
  }

 private:
  const T* pixel(int64_t b, int64_t y, int64_t x) const { return static_cast<const T*>(x_.data) + b * x_.sb + y * x_.sh + x * x_.sw; }

  // A row of pixels from `window` on, for several groups at once; behind an image's last window, its first.
  Ahead<1> ahead(int64_t b, int64_t window, int64_t row) const {
    window = window < windows_ ? window : 0;
    const int64_t y = grid_.row_of_token[window / windows_across_ * kWindow + row];
    const int64_t x = grid_.col_of_token[window % windows_across_ * kWindow];
    return {{reinterpret_cast<const char*>(pixel(b, y < 0 ? 0 : y, x < 0 ? 0 : x))}};
  }

  // Normalise the tokens of `count` windows from window `first` on; absent ones, and the rest of the group, are zero.
  void gather(int64_t b, int64_t first, int64_t count, T* tokens, bool* present) const {
    const T* from[kGroupTokens];
    T* to[kGroupTokens];
    int64_t found = 0;
    for (int64_t t = 0; t < kGroupTokens; ++t) {
      const int64_t window = first + t / kTokens, in_window = t % kTokens;
      present[t] = false;
      if (t < count * kTokens) {
        const int64_t row = grid_.row_of_token[window / windows_across_ * kWindow + in_window / kWindow];
        const int64_t col = grid_.col_of_token[window % windows_across_ * kWindow + in_window % kWindow];
        present[t] = row >= 0 && col >= 0;
        if (present[t]) {
          from[found] = pixel(b, row, col);
          to[found++] = tokens + t * p_.channels;
          continue;
        }
      }
      for (int64_t i = 0; i < p_.channels; ++i) tokens[t * p_.channels + i] = 0;
    }
    layer_norms(from, p_.norm1_weight, p_.norm1_bias, p_.channels, to, found);
  }

  // First row (or column) of the image whose token is at or behind `token`.
  static int64_t first_at(const int32_t* token_of, int64_t size, int64_t tokens, int64_t token) {
    int64_t guess = token * size / tokens;
    guess = guess > size ? size : guess;
    while (guess > 0 && token_of[guess - 1] >= token) --guess;
    while (guess < size && token_of[guess] < token) ++guess;
    return guess;
  }

  // Add the attention to every pixel these windows serve, then the MLP, a group of pixels at a time.
  void finish(int64_t b, int64_t first, int64_t count, const Workspace<T>& s) const {
    T* pixels[kGroupTokens];
    int64_t waiting = 0;
    for (int64_t w = first; w < first + count; ++w) {
      const int64_t top = w / windows_across_ * kWindow, left = w % windows_across_ * kWindow;
      const int64_t y1 = first_at(grid_.token_of_row, x_.h, grid_.token_rows, top + kWindow);
      const int64_t x0 = first_at(grid_.token_of_col, x_.w, grid_.token_cols, left);
      const int64_t x1 = first_at(grid_.token_of_col, x_.w, grid_.token_cols, left + kWindow);
      for (int64_t y = first_at(grid_.token_of_row, x_.h, grid_.token_rows, top); y < y1; ++y) {
        for (int64_t col = x0; col < x1; ++col) {
          const int64_t token = (w - first) * kTokens + (grid_.token_of_row[y] - top) * kWindow + grid_.token_of_col[col] - left;
          const T *from = pixel(b, y, col), *attended = s.attended + token * p_.channels;
          T* sum = s.query + waiting * p_.channels;
          for (int64_t i = 0; i < p_.channels; i += kLanes<T>) store(sum + i, load(from + i) + load(attended + i));
          pixels[waiting++] = static_cast<T*>(out_.data) + b * out_.sb + y * out_.sh + col * out_.sw;
          if (waiting == kGroupTokens) {
            mlp(s, pixels, waiting);
            waiting = 0;
          }
        }
      }
    }
    if (waiting > 0) mlp(s, pixels, waiting);
  }

  // s.query holds the pixels after attention; s.key and s.value are free.
  void mlp(const Workspace<T>& s, T* const* pixels, int64_t count) const {
    const int64_t rows = (count + kRowStep - 1) / kRowStep * kRowStep;
    for (int64_t i = 0; i < rows * p_.channels; ++i) {
      if (i >= count * p_.channels) s.key[i] = 0;
    }
    const T* from[kGroupTokens];
    T* to[kGroupTokens];
    for (int64_t t = 0; t < count; ++t) {
      from[t] = s.query + t * p_.channels;
      to[t] = s.key + t * p_.channels;
    }
    layer_norms(from, p_.norm2_weight, p_.norm2_bias, p_.channels, to, count);
    product<T, true>(s.key, rows, p_.channels, p_.fc1.packed, p_.fc1.bias, p_.hidden, s.hidden);
    product(s.hidden, rows, p_.hidden, p_.fc2.packed, p_.fc2.bias, p_.channels, s.value);
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t i = 0; i < p_.channels; i += kLanes<T>) {
        write(pixels[t] + i, load(s.query + t * p_.channels + i) + load(s.value + t * p_.channels + i), streamed_);
      }
    }
  }

  const ImageView &x_, &out_;
  const WindowGrid& grid_;
  const Packed<T>& p_;
  const int threads_;
  int64_t windows_across_, windows_;
  bool streamed_;
};

template <typename T>
void run(const ImageView& x, const ImageView& out, const WindowAttentionWeights& weights, const WindowGrid& grid, int threads) {
  const Packed<T> packed(weights, x.c);
  const Block<T> block(x, out, grid, packed, threads);
  const int64_t groups = block.groups();
  parallel_for(x.b * groups, threads, [&](int64_t task) { block.run(task / groups, task % groups); });
}

}  // namespace

void window_attention(const ImageView& x, const ImageView& out, const WindowAttentionWeights& weights, const WindowGrid& grid,
                      int threads) {
  if (x.dtype == DType::kFloat32) run<float>(x, out, weights, grid, threads);
  else run<double>(x, out, weights, grid, threads);
}

}  // namespace EMSR_ISA
}  // namespace emsr
