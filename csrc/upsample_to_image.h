#pragma once
#include "image_view.h"

namespace emsr {

// A 5x5 convolution of x (B, C, H, W) to scale * scale HR pixels per LR pixel, out (B, 1, scale * H, scale * W); float32,
// zeros outside x. `weight` is (4, 4, 5, 5, scale * scale, C): which rows, then columns, of the border the LR pixel lies on
// (1: first, 2: last, 3: both), tap, HR pixel within the LR pixel, channel. C % 16 == 0, scale is 2, 3 or 4.
// Channels of x lie side by side (stride 1).
void upsample_to_image_cpu(const ImageView& x, const ImageView& out, const float* weight, int64_t scale, int threads);

}  // namespace emsr
