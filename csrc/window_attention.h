#pragma once
#include "image_view.h"

namespace emsr {

constexpr int kWindow = 4;  // pixels on a side of an attention window
constexpr int kTokens = kWindow * kWindow;

// The block's parameters, contiguous, of the image's dtype; matrices are (out, in).
struct WindowAttentionWeights {
  const void *norm1_weight, *norm1_bias;  // (C)
  const void* qkv_weight;                 // (3C, C): rows are queries, keys, values, each head by head
  const void *proj_weight, *proj_bias;    // (C, C), (C)
  const void *norm2_weight, *norm2_bias;  // (C)
  const void *fc1_weight, *fc1_bias;      // (hidden, C), (hidden)
  const void *fc2_weight, *fc2_bias;      // (C, hidden), (C)
  int64_t heads, hidden;
};

// How token rows and columns, a multiple of kWindow of each, meet those of the image.
struct WindowGrid {
  int64_t token_rows, token_cols;
  const int32_t *row_of_token, *col_of_token;  // the image row or column a token reads; -1: none, not attended to
  const int32_t *token_of_row, *token_of_col;  // the token a pixel takes its result from; never decreasing
};

// x + attention + MLP of x (B, C, H, W) into out, both with the channels side by side (stride 1), C % 16 == 0.
void window_attention_cpu(const ImageView& x, const ImageView& out, const WindowAttentionWeights& weights,
                          const WindowGrid& grid, int threads);

// softmax(q k^T / sqrt(C / heads)) v in windows, from qkv (B, 3C, H, W) into out (B, C, H, W): float32, H and W multiples of
// kWindow, C of 16, channels side by side.
void attend_windows_cpu(const ImageView& qkv, const ImageView& out, int64_t heads, int threads);

// The gradient of qkv into out, of its shape, from that of the result, (B, C, H, W).
void attend_windows_backward_cpu(const ImageView& qkv, const ImageView& grad, const ImageView& out, int64_t heads, int threads);

// out (tokens, outputs) = x (tokens, inputs) times weight^T, plus bias (or nullptr), ReLU if asked for; weight (outputs, inputs).
// All dense, float32; inputs and outputs are multiples of 16.
void linear_cpu(const float* x, int64_t tokens, int64_t inputs, const float* weight, const float* bias, int64_t outputs, bool relu,
                float* out, int threads);

// The gradient of the weight into out (outputs, inputs), from x and that of the result, (tokens, outputs). Sums are added in
// an order that depends on `threads` alone.
void linear_weight_gradient_cpu(const float* x, const float* grad, int64_t tokens, int64_t inputs, int64_t outputs, float* out,
                                int threads);

// The block on a GPU, in whole windows whose tokens beyond the image nobody attends to. float32, float16 or bfloat16; 16, 32
// or 64 channels, heads of 4; pixels, and the float32 parameters, start on multiples of 16 bytes, others on 4.
constexpr int64_t kMaxHiddenRatio = 4;  // hidden units a channel: weights that fit the shared memory of every GPU from sm_80 on
void window_attention_cuda(const ImageView& x, const ImageView& out, const WindowAttentionWeights& weights, int device,
                           uintptr_t stream);

}  // namespace emsr
