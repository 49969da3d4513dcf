#pragma once
#include "image_view.h"

namespace emsr {

// The deepest wavelet the kernels take: level n reads 2^n pixels away on each side.
constexpr int kMaxAtrousLevels = 4;

// À-trous details of x (B, C, H, W) into out (B, levels * C, H, W), finest level first, zeros outside the image.
void atrous_details_cpu(const ImageView& x, const ImageView& out, int levels, int threads);
void atrous_details_cuda(const ImageView& x, const ImageView& out, int levels, int device, uintptr_t stream);

// Its adjoint: grad (B, levels * C, H, W) into out (B, C, H, W).
void atrous_details_backward_cpu(const ImageView& grad, const ImageView& out, int levels, int threads);
void atrous_details_backward_cuda(const ImageView& grad, const ImageView& out, int levels, int device,
                                  uintptr_t stream);

}  // namespace emsr
