#pragma once
#include "image_view.h"

namespace emsr {

// out = conv(x, k3) * sigmoid(k2 * leaky_relu(conv(x, k1)) + bias), (B, C, H, W) to the same shape; float32, C % 16 == 0.
// k1 and k3 are (C, C, 3, 3) as conv3x3_pack_cpu wrote them; k2 is a contiguous (C, C) matrix, (out, in), bias (C).
// Channels lie side by side (stride 1) in both images.
void edge_gate_cpu(const ImageView& x, const ImageView& out, const float* packed_k1, const float* k2, const float* bias,
                   const float* packed_k3, int threads);

}  // namespace emsr
