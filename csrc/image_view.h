// A strided (B, C, H, W) view of memory that Python owns. No libtorch, no ownership.
#pragma once
#include <cstdint>

namespace emsr {

enum class DType : int { kFloat32 = 0, kFloat64 = 1, kFloat16 = 2, kBFloat16 = 3 };

struct ImageView {
  void* data;
  int64_t b, c, h, w;      // sizes, in elements
  int64_t sb, sc, sh, sw;  // strides, in elements (not bytes)
  DType dtype;
};

}  // namespace emsr
