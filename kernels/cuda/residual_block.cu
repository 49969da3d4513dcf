// The residual block of 64 channels on Hopper's tensor cores, in one kernel. What a block does is in
// residual_block_strip.cuh; here are the kernel and its launch. Compiled for compute_90a alone.
#include "residual_block.h"

#include "hopper_launch.cuh"
#include "residual_block_strip.cuh"
#include "warpgroup.cuh"

namespace emsr {
namespace {

constexpr int kBlockThreads = 2 * kGroupThreads;

// Persistent blocks, one on a multiprocessor, an equal number of rows each.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads, 1)
    residual_block_strip_kernel(BlockImages images,   // (B, 64, H, W) of T
                                const void* first,    // (64, 3, 3, 64) of T
                                const void* second)   // the same
{
  extern __shared__ uint4 shared[];
  // from one lane for all: ptxas then knows that descriptors and barriers are the same for a warp
  const uint32_t number = __shfl_sync(0xffffffff, threadIdx.x / kGroupThreads, 0);
  const DeviceGroup<T> group{number, threadIdx.x % kGroupThreads,
                             static_cast<uint32_t>(__cvta_generic_to_shared(shared))};
  const ResidualStrip<DeviceGroup<T>> strip(group, group.number == 0 ? first : second);
  if (group.number == 0) {
    for_segments(images.x, kBlockColumns, blockIdx.x, gridDim.x, [&](const Segment& rows) { strip.run_first(images, rows); });
  } else {
    for_segments(images.x, kBlockColumns, blockIdx.x, gridDim.x, [&](const Segment& rows) { strip.run_second(images, rows); });
  }
}

const std::string kName = "residual_block_cuda";

}  // namespace

void residual_block_cuda(const ImageView& x, const ImageView& out, const void* first, const void* second, int device,
                         uintptr_t stream) {
  check_images(kName, x, {&x, &out});
  const int64_t rows = x.b * x.h * strip_count(x, kBlockColumns);
  if (rows == 0) return;
  const DeviceGuard guard(device, kName);
  const auto kernel =
      x.dtype == DType::kFloat16 ? &residual_block_strip_kernel<__half> : &residual_block_strip_kernel<__nv_bfloat16>;
  constexpr int kBytes = ResidualStrip<DeviceGroup<__half>>::kSharedBytes;
  const unsigned blocks = persistent_blocks(kName, reinterpret_cast<const void*>(kernel), kBytes, device, 1, rows);
  kernel<<<blocks, kBlockThreads, kBytes, reinterpret_cast<cudaStream_t>(stream)>>>({x, out}, first, second);
  check_cuda(cudaGetLastError(), kName);
}

}  // namespace emsr
