// 3x3 convolutions of 64 to 64 channels on Hopper's tensor cores, the weights in registers for good. What a block does is
// in conv3x3_strip.cuh; here are the kernel and its launch. Compiled for compute_90a alone.
#include "conv3x3.h"

#include <algorithm>
#include <climits>

#include "common.cuh"
#include "conv3x3_strip.cuh"
#include "warpgroup.cuh"

namespace emsr {
namespace {

constexpr int kConvBlocks = 2;  // on a multiprocessor: one writes its row while the other's products run

// Persistent blocks, an equal number of rows each.
template <typename T>
__global__ void __launch_bounds__(kGroupThreads, kConvBlocks)
    conv3x3_strip_kernel(ConvImages images,   // (B, 64, H, W) of T
                         const void* weight)  // (64, 3, 3, 64) of T
{
  extern __shared__ uint4 shared[];
  const DeviceGroup<T> group{threadIdx.x, static_cast<uint32_t>(__cvta_generic_to_shared(shared))};
  ConvStrip<DeviceGroup<T>, kConvColumns> strip(group, weight);
  for_segments(images.x, kConvColumns, blockIdx.x, gridDim.x, [&](const Segment& rows) { strip.run(images, rows); });
}

const std::string kName = "conv3x3_cuda";

bool fits(const ImageView& view, const ImageView& x) {
  // what there is one of needs no step to the next
  const int64_t steps = (view.b > 1 ? view.sb : 0) | (view.h > 1 ? view.sh : 0) | (view.w > 1 ? view.sw : 0);
  return view.b == x.b && view.c == kConvChannels && view.h == x.h && view.w == x.w && view.sc == 1 &&
         view.dtype == x.dtype && steps % 8 == 0 && reinterpret_cast<uintptr_t>(view.data) % 16 == 0;
}

}  // namespace

void conv3x3_cuda(const ImageView& x, const ImageView& out, const ImageView& other, const void* weight,
                  Activation activation, Combine combine, int device, uintptr_t stream) {
  if (!fits(x, x) || !fits(out, x) || (combine != Combine::kNothing && !fits(other, x))) {
    throw std::runtime_error(kName + ": images must have 64 channels, side by side, one shape and dtype, and their "
                                     "pixels on multiples of 16 bytes");
  }
  if (x.h > INT_MAX - kConvColumns || x.w > INT_MAX - kConvColumns) {
    throw std::runtime_error(kName + ": rows and columns are counted in 31 bits");
  }
  if (x.dtype != DType::kFloat16 && x.dtype != DType::kBFloat16) {
    throw std::runtime_error(kName + ": float16 or bfloat16 only");
  }
  const int64_t rows = x.b * x.h * strip_count(x, kConvColumns);
  if (rows == 0) return;
  const DeviceGuard guard(device, kName);
  int multiprocessors = 0;
  check_cuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), kName);
  const auto kernel = x.dtype == DType::kFloat16 ? &conv3x3_strip_kernel<__half> : &conv3x3_strip_kernel<__nv_bfloat16>;
  constexpr int kBytes = ConvStrip<DeviceGroup<__half>, kConvColumns>::kSharedBytes;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), kName);
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(rows, kConvBlocks * multiprocessors));
  kernel<<<blocks, kGroupThreads, kBytes, reinterpret_cast<cudaStream_t>(stream)>>>({x, other, out, activation, combine},
                                                                                   weight);
  check_cuda(cudaGetLastError(), kName);
}

}  // namespace emsr
