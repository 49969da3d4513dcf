// À-trous details and their adjoint: one kernel each, which reads the image once and writes all levels.
// What a thread does is in atrous_phases.cuh; here are the kernels, their barriers and their launch.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "atrous.h"
#include "atrous_phases.cuh"
#include "common.cuh"

namespace emsr {
namespace {

// Shared memory of one SM, in bytes.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200
constexpr int kSharedOfSm = 100 * 1024;
#elif __CUDA_ARCH__ < 900
constexpr int kSharedOfSm = 164 * 1024;
#else
constexpr int kSharedOfSm = 228 * 1024;
#endif

// Blocks that fit an SM by their shared memory (CUDA takes 1 KB more for each), so registers must not allow fewer.
// One at four levels, where the adjoint would spill for a second.
template <class Tile>
constexpr int kBlocksOfSm = Tile::kLevels == 4 ? 1 : std::clamp(kSharedOfSm / (Tile::kSharedBytes + 1024), 1, 3);

template <class Operator, int kPhase = 0>
__device__ __forceinline__ void run_phases(const ImageView& in, const ImageView& out, const AtrousPlace& at,
                                           float* image, float* rows) {
  Operator::template run<kPhase>(in, out, at, image, rows, static_cast<int>(threadIdx.x));
  if constexpr (kPhase + 1 < Operator::kPhases) {
    __syncthreads();
    run_phases<Operator, kPhase + 1>(in, out, at, image, rows);
  }
}

// `tiled` is the side with one plane per tile: x of the details, the gradient of x of the adjoint.
template <class Operator>
__device__ __forceinline__ void run_tile(const ImageView& in, const ImageView& out, const ImageView& tiled) {
  extern __shared__ float shared[];
  using Tile = typename Operator::Tile;
  run_phases<Operator>(in, out, atrous_place<Tile>(tiled, blockIdx.x), shared, shared + Tile::kPlane);
}

// One block per tile, four threads per column of it; grid (tiles of all channels).
template <typename T, int kLevels>
__global__ void __launch_bounds__(AtrousTile<kLevels>::kThreads, kBlocksOfSm<AtrousTile<kLevels>>)
    atrous_details_kernel(ImageView x,   // (B, C, H, W) of T
                          ImageView out  // (B, kLevels * C, H, W) of T, finest level first
    ) {
  run_tile<AtrousDetails<T, kLevels>>(x, out, x);
}

// The same tiles, from the coarsest level to the finest.
template <typename T, int kLevels>
__global__ void __launch_bounds__(AtrousTile<kLevels>::kThreads, kBlocksOfSm<AtrousTile<kLevels>>)
    atrous_adjoint_kernel(ImageView grad,  // (B, kLevels * C, H, W) of T, finest level first
                          ImageView out    // (B, C, H, W) of T
    ) {
  run_tile<AtrousAdjoint<T, kLevels>>(grad, out, out);
}

using Kernel = void (*)(ImageView, ImageView);

template <class Tile>
void launch(Kernel kernel, const ImageView& in, const ImageView& out, const ImageView& tiled, cudaStream_t stream,
            const std::string& name) {
  const int64_t tiles = atrous_tiles<Tile>(tiled);
  if (tiles == 0) return;
  if (tiles > 2147483647) {
    throw std::runtime_error(name + ": " + std::to_string(tiles) + " tiles in one launch, CUDA takes 2147483647");
  }
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes),
             name + ": shared memory of " + std::to_string(Tile::kSharedBytes) + " bytes");
  kernel<<<static_cast<unsigned>(tiles), Tile::kThreads, Tile::kSharedBytes, stream>>>(in, out);
  check_cuda(cudaGetLastError(), name);
}

// Picks the kernel of a dtype and a number of levels, and launches it.
template <typename T, int kLevels = 1>
void launch_levels(bool adjoint, const ImageView& in, const ImageView& out, int levels, cudaStream_t stream,
                   const std::string& name) {
  if (levels == kLevels) {
    const Kernel kernel = adjoint ? &atrous_adjoint_kernel<T, kLevels> : &atrous_details_kernel<T, kLevels>;
    launch<AtrousTile<kLevels>>(kernel, in, out, adjoint ? out : in, stream, name);
  } else if constexpr (kLevels < kMaxAtrousLevels) {
    launch_levels<T, kLevels + 1>(adjoint, in, out, levels, stream, name);
  }
}

void run(bool adjoint, const ImageView& in, const ImageView& out, int levels, int device, uintptr_t stream_handle) {
  const std::string name = adjoint ? "atrous_adjoint_kernel" : "atrous_details_kernel";
  const ImageView& image = adjoint ? out : in;
  const ImageView& details = adjoint ? in : out;
  if (levels < 1 || levels > kMaxAtrousLevels) {
    throw std::runtime_error(name + ": 1 to " + std::to_string(kMaxAtrousLevels) + " levels, got " +
                             std::to_string(levels));
  }
  if (details.b != image.b || details.c != levels * image.c || details.h != image.h || details.w != image.w) {
    throw std::runtime_error(name + ": the details must have the image's sizes and levels times its channels");
  }
  if (in.dtype != out.dtype) throw std::runtime_error(name + ": input and output must have one dtype");

  const DeviceGuard guard(device, name);
  const auto stream = reinterpret_cast<cudaStream_t>(stream_handle);
  switch (in.dtype) {
    case DType::kFloat32: return launch_levels<float>(adjoint, in, out, levels, stream, name);
    case DType::kFloat16: return launch_levels<__half>(adjoint, in, out, levels, stream, name);
    case DType::kBFloat16: return launch_levels<__nv_bfloat16>(adjoint, in, out, levels, stream, name);
    default: throw std::runtime_error(name + ": float32, float16 or bfloat16 only");
  }
}

}  // namespace

void atrous_details_cuda(const ImageView& x, const ImageView& out, int levels, int device, uintptr_t stream) {
  run(false, x, out, levels, device, stream);
}

void atrous_details_backward_cuda(const ImageView& grad, const ImageView& out, int levels, int device,
                                  uintptr_t stream) {
  run(true, grad, out, levels, device, stream);
}

}  // namespace emsr
