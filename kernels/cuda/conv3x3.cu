// 3x3 convolutions of 64 to 64 channels on Hopper's tensor cores, the weights in registers for good. What a block does is
// in conv3x3_strip.cuh; here are the kernel and its launch. Compiled for compute_90a alone.
#include "conv3x3.h"

#include "conv3x3_strip.cuh"
#include "hopper_launch.cuh"
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
  const DeviceGroup<T> group{0, threadIdx.x, static_cast<uint32_t>(__cvta_generic_to_shared(shared))};
  ConvStrip<DeviceGroup<T>, kConvColumns> strip(group, weight);
  for_segments(images.x, kConvColumns, blockIdx.x, gridDim.x, [&](const Segment& rows) { strip.run(images, rows); });
}

const std::string kName = "conv3x3_cuda";

}  // namespace

void conv3x3_cuda(const ImageView& x, const ImageView& out, const ImageView& other, const void* weight,
                  Activation activation, Combine combine, int device, uintptr_t stream) {
  check_images(kName, x, {&x, &out, combine == Combine::kNothing ? &x : &other});
  const int64_t rows = x.b * x.h * strip_count(x, kConvColumns);
  if (rows == 0) return;
  const DeviceGuard guard(device, kName);
  const auto kernel = x.dtype == DType::kFloat16 ? &conv3x3_strip_kernel<__half> : &conv3x3_strip_kernel<__nv_bfloat16>;
  constexpr int kBytes = ConvStrip<DeviceGroup<__half>, kConvColumns>::kSharedBytes;
  const unsigned blocks = persistent_blocks(kName, reinterpret_cast<const void*>(kernel), kBytes, device, kConvBlocks, rows);
  kernel<<<blocks, kGroupThreads, kBytes, reinterpret_cast<cudaStream_t>(stream)>>>({x, other, out, activation, combine},
                                                                                   weight);
  check_cuda(cudaGetLastError(), kName);
}

}  // namespace emsr
