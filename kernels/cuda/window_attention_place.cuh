// Which windows a launch has, where they lie, and which of their pixels exist.
#pragma once
#include <cstdint>

#include "host_device.cuh"
#include "window_attention.h"

namespace emsr {

constexpr uint32_t kAllTokens = (1u << kTokens) - 1;

EMSR_HOST_DEVICE int64_t windows_along(int64_t size) { return (size + kWindow - 1) / kWindow; }

// Windows of a batch (B, C, H, W); those at the lower and right border may reach beyond the image.
EMSR_HOST_DEVICE int64_t window_count(const ImageView& x) { return x.b * windows_along(x.h) * windows_along(x.w); }

struct WindowPlace {
  uint32_t b;
  int64_t row, col;  // of the window's first pixel
  uint32_t inside;   // bit t: the pixel of token t exists; none of a window behind the last

  // Tokens that are attended to. A window that does not exist attends to itself: nobody sees it.
  EMSR_HOST_DEVICE uint32_t keys() const { return inside == 0 ? kAllTokens : inside; }
  // Offset of a token's pixel in a view, in elements.
  EMSR_HOST_DEVICE int64_t offset(const ImageView& view, uint32_t token) const {
    return b * view.sb + (row + token / kWindow) * view.sh + (col + token % kWindow) * view.sw;
  }
};

// Place of window number `window`, counted along rows, then columns, then batch entries. There are fewer than 2^31: 32-bit
// divisions, a quarter of the work of 64-bit ones, are enough.
EMSR_HOST_DEVICE WindowPlace window_place(const ImageView& x, uint32_t window) {
  const auto down = static_cast<uint32_t>(windows_along(x.h)), across = static_cast<uint32_t>(windows_along(x.w));
  if (window >= static_cast<uint32_t>(x.b) * down * across) return {0, 0, 0, 0};
  const uint32_t line = window / across;
  const int64_t row = int64_t{line % down} * kWindow, col = int64_t{window % across} * kWindow;
  const int64_t rows = x.h - row, cols = x.w - col;
  const uint32_t line_bits = cols >= kWindow ? 0xf : (1u << cols) - 1;
  const uint32_t every_line = line_bits * 0x1111;
  return {line / down, row, col, rows >= kWindow ? every_line : every_line & ((1u << (kWindow * rows)) - 1)};
}

}  // namespace emsr
