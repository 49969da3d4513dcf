// What the launchers of the convolutions on Hopper share.
#pragma once
#include <algorithm>
#include <climits>
#include <initializer_list>

#include "common.cuh"
#include "conv_planes.cuh"

namespace emsr {

// Throws unless all images have the shape and dtype of x, 64 channels side by side, and pixels on multiples of 16 bytes.
inline void check_images(const std::string& name, const ImageView& x, std::initializer_list<const ImageView*> images) {
  for (const ImageView* view : images) {
    // what there is one of needs no step to the next
    const int64_t steps = (x.b > 1 ? view->sb : 0) | (x.h > 1 ? view->sh : 0) | (x.w > 1 ? view->sw : 0);
    if (view->b != x.b || view->c != kConvChannels || view->h != x.h || view->w != x.w || view->sc != 1 ||
        view->dtype != x.dtype || steps % 8 != 0 || reinterpret_cast<uintptr_t>(view->data) % 16 != 0) {
      throw std::runtime_error(name + ": images must have 64 channels, side by side, one shape and dtype, and their "
                                      "pixels on multiples of 16 bytes");
    }
  }
  if (x.h > INT_MAX - 256 || x.w > INT_MAX - 256) {
    throw std::runtime_error(name + ": rows and columns are counted in 31 bits");
  }
  if (x.dtype != DType::kFloat16 && x.dtype != DType::kBFloat16) {
    throw std::runtime_error(name + ": float16 or bfloat16 only");
  }
}

// Allows a kernel its shared memory and returns how many blocks run at once, `each` on a multiprocessor; no more than rows.
inline unsigned persistent_blocks(const std::string& name, const void* kernel, int shared_bytes, int device, int each,
                                  int64_t rows) {
  int multiprocessors = 0;
  check_cuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), name);
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), name);
  // all of it for blocks, none kept for L1: two must fit
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
             name);
  return static_cast<unsigned>(std::min<int64_t>(rows, int64_t{each} * multiprocessors));
}

}  // namespace emsr
