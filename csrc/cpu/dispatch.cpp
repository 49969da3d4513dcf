// The public CPU entry points: each calls the copy of its kernel that was compiled for this CPU.
#include "atrous.h"
#include "conv3x3.h"
#include "edge_gate.h"
#include "isa.h"
#include "upsample_to_image.h"
#include "window_attention.h"

#ifdef EMSR_X86
#define EMSR_DISPATCH(function, ...)                                          \
  switch (cpu_isa()) {                                                        \
    case Isa::kAvx512: return avx512::function(__VA_ARGS__);                  \
    case Isa::kAvx2: return avx2::function(__VA_ARGS__);                      \
    case Isa::kBaseline: return baseline::function(__VA_ARGS__);              \
  }
#define EMSR_DECLARE(signature)    \
  namespace baseline { signature; } \
  namespace avx2 { signature; }     \
  namespace avx512 { signature; }
#else
#define EMSR_DISPATCH(function, ...) return baseline::function(__VA_ARGS__);
#define EMSR_DECLARE(signature) \
  namespace baseline { signature; }
#endif

namespace emsr {

EMSR_DECLARE(void atrous_details(const ImageView& x, const ImageView& out, int levels, int threads))
EMSR_DECLARE(void atrous_details_backward(const ImageView& grad, const ImageView& out, int levels, int threads))
EMSR_DECLARE(void conv3x3_pack(const ImageView& weight, float* packed, int threads))
EMSR_DECLARE(void conv3x3_weight_gradient(const ImageView& x, const ImageView& grad, const ImageView& out, int threads))
EMSR_DECLARE(void conv3x3(const ImageView& x, const ImageView& out, const ImageView& other, const float* packed,
                          Activation activation, Combine combine, int threads))
EMSR_DECLARE(void edge_gate(const ImageView& x, const ImageView& out, const float* packed_k1, const float* k2,
                            const float* bias, const float* packed_k3, int threads))
EMSR_DECLARE(void upsample_to_image(const ImageView& x, const ImageView& out, const float* weight, int64_t scale, int threads))
EMSR_DECLARE(void window_attention(const ImageView& x, const ImageView& out, const WindowAttentionWeights& weights,
                                   const WindowGrid& grid, int threads))
EMSR_DECLARE(void linear(const float* x, int64_t tokens, int64_t inputs, const float* weight, const float* bias, int64_t outputs,
                         bool relu, float* out, int threads))
EMSR_DECLARE(void linear_weight_gradient(const float* x, const float* grad, int64_t tokens, int64_t inputs, int64_t outputs,
                                         float* out, int threads))
EMSR_DECLARE(void attend_windows(const ImageView& qkv, const ImageView& out, int64_t heads, int threads))
EMSR_DECLARE(void attend_windows_backward(const ImageView& qkv, const ImageView& grad, const ImageView& out, int64_t heads,
                                          int threads))

void atrous_details_cpu(const ImageView& x, const ImageView& out, int levels, int threads) {
  EMSR_DISPATCH(atrous_details, x, out, levels, threads)
}

void atrous_details_backward_cpu(const ImageView& grad, const ImageView& out, int levels, int threads) {
  EMSR_DISPATCH(atrous_details_backward, grad, out, levels, threads)
}

int64_t conv3x3_packed_size(int64_t outputs, int64_t inputs) {
  const bool transformed = outputs > 1 && inputs >= 16;
  return (transformed ? 64 : 9) * outputs * inputs;
}

void conv3x3_pack_cpu(const ImageView& weight, float* packed, int threads) {
  EMSR_DISPATCH(conv3x3_pack, weight, packed, threads)
}

void conv3x3_weight_gradient_cpu(const ImageView& x, const ImageView& grad, const ImageView& out, int threads) {
  EMSR_DISPATCH(conv3x3_weight_gradient, x, grad, out, threads)
}

void conv3x3_cpu(const ImageView& x, const ImageView& out, const ImageView& other, const float* packed, Activation activation,
                 Combine combine, int threads) {
  EMSR_DISPATCH(conv3x3, x, out, other, packed, activation, combine, threads)
}

void edge_gate_cpu(const ImageView& x, const ImageView& out, const float* packed_k1, const float* k2, const float* bias,
                   const float* packed_k3, int threads) {
  EMSR_DISPATCH(edge_gate, x, out, packed_k1, k2, bias, packed_k3, threads)
}

void upsample_to_image_cpu(const ImageView& x, const ImageView& out, const float* weight, int64_t scale, int threads) {
  EMSR_DISPATCH(upsample_to_image, x, out, weight, scale, threads)
}

void window_attention_cpu(const ImageView& x, const ImageView& out, const WindowAttentionWeights& weights,
                          const WindowGrid& grid, int threads) {
  EMSR_DISPATCH(window_attention, x, out, weights, grid, threads)
}

void linear_cpu(const float* x, int64_t tokens, int64_t inputs, const float* weight, const float* bias, int64_t outputs, bool relu,
                float* out, int threads) {
  EMSR_DISPATCH(linear, x, tokens, inputs, weight, bias, outputs, relu, out, threads)
}

void linear_weight_gradient_cpu(const float* x, const float* grad, int64_t tokens, int64_t inputs, int64_t outputs, float* out,
                                int threads) {
  EMSR_DISPATCH(linear_weight_gradient, x, grad, tokens, inputs, outputs, out, threads)
}

void attend_windows_cpu(const ImageView& qkv, const ImageView& out, int64_t heads, int threads) {
  EMSR_DISPATCH(attend_windows, qkv, out, heads, threads)
}

void attend_windows_backward_cpu(const ImageView& qkv, const ImageView& grad, const ImageView& out, int64_t heads, int threads) {
  EMSR_DISPATCH(attend_windows_backward, qkv, grad, out, heads, threads)
}

}  // namespace emsr
