#pragma once
#include "image_view.h"

namespace emsr {

// x + conv(relu(conv(x, first)), second) of x (B, 64, H, W) into out, on a GPU of compute capability 9.0: float16 or bfloat16,
// sums in float32, the features between the layers rounded. Both with their channels side by side and pixels on multiples of
// 16 bytes; weights (64, 3, 3, 64), contiguous, on multiples of 4.
void residual_block_cuda(const ImageView& x, const ImageView& out, const void* first, const void* second, int device,
                         uintptr_t stream);

}  // namespace emsr
