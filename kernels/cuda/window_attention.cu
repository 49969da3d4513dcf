// The window transformer block: one kernel, which reads and writes each pixel once. What a warp does is in
// window_attention_mma.cuh (float16 and bfloat16, tensor cores) and window_attention_fma.cuh (float32); here are the
// lanes' instructions, the kernels and their launch.
#include <algorithm>
#include <type_traits>

#include "common.cuh"
#include "halves.cuh"
#include "window_attention_fma.cuh"
#include "window_attention_mma.cuh"
#include "window_attention_steps.cuh"

namespace emsr {
namespace {

// The instructions of a lane that concern its whole warp, or the 16-bit type T.
template <typename T>
struct DeviceWarp {
  using Two = typename Pair<T>::Type;
  static constexpr float kInfinity = __builtin_huge_valf();
  static constexpr uint32_t kOnes = Pair<T>::kOnes;
  uint32_t lane;

  // volatile: what follows from the lane is computed again in each step, not kept in registers that would spill
  __device__ DeviceWarp() { asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane)); }
  // keeps the loads behind it behind it, so that fewer wait in registers
  __device__ void fence() const { asm volatile("" ::: "memory"); }
  // the same value, but neither nvcc nor ptxas knows that it is
  __device__ uint32_t forget(uint32_t value) const { return __shfl_xor_sync(0xffffffff, value, 0); }
  __device__ float shuffle(float value, uint32_t from) const { return __shfl_sync(0xffffffff, value, from); }
  __device__ float shuffle_xor(float value, int mask) const { return __shfl_xor_sync(0xffffffff, value, mask); }
  __device__ float larger(float a, float b) const { return fmaxf(a, b); }
  __device__ float exp(float x) const { return expf(x); }
  __device__ float exp2(float x) const {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
  }
  __device__ float reciprocal(float x) const {
    float result;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
  }
  __device__ float reciprocal_root(float x) const {
    float result;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
  }
  __device__ uint32_t pack(float low, float high) const { return as_word(Pair<T>::from(low, high)); }
  __device__ void unpack(uint32_t word, float& low, float& high) const {
    const float2 both = Pair<T>::to_floats(as_two(word));
    low = both.x;
    high = both.y;
  }
  // of both values; a NaN stays
  __device__ uint32_t relu(uint32_t word) const { return as_word(__hmax2_nan(as_two(word), as_two(0))); }

  // sums += a (16 x 16, row by row) * b (16 x 8, column by column)
  __device__ void mma16(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) const {
    // read here and written there: a sum that starts as a constant 0 needs no register
    const float c0 = sums[0], c1 = sums[1], c2 = sums[2], c3 = sums[3];
    if constexpr (std::is_same_v<T, __half>) {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
          : "=f"(sums[0]), "=f"(sums[1]), "=f"(sums[2]), "=f"(sums[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c0), "f"(c1), "f"(c2), "f"(c3));
    } else {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
          : "=f"(sums[0]), "=f"(sums[1]), "=f"(sums[2]), "=f"(sums[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c0), "f"(c1), "f"(c2), "f"(c3));
    }
  }
  // sums += a (16 x 8) * b (8 x 8)
  __device__ void mma8(float (&sums)[4], const uint32_t (&a)[2], uint32_t b) const {
    const float c0 = sums[0], c1 = sums[1], c2 = sums[2], c3 = sums[3];
    if constexpr (std::is_same_v<T, __half>) {
      asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};"
          : "=f"(sums[0]), "=f"(sums[1]), "=f"(sums[2]), "=f"(sums[3])
          : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c0), "f"(c1), "f"(c2), "f"(c3));
    } else {
      asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};"
          : "=f"(sums[0]), "=f"(sums[1]), "=f"(sums[2]), "=f"(sums[3])
          : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c0), "f"(c1), "f"(c2), "f"(c3));
    }
  }

 private:
  __device__ static uint32_t as_word(Two two) { return *reinterpret_cast<uint32_t*>(&two); }
  __device__ static Two as_two(uint32_t word) { return *reinterpret_cast<Two*>(&word); }
};

// Persistent blocks: one on each SM stages the weights once; its warps take two windows at a time.
template <typename T, int kChannels>
__global__ void __launch_bounds__(kMmaWarps * 32, 1)
    window_attention_mma_kernel(ImageView x,    // (B, C, H, W) of T, channels side by side
                                ImageView out,  // the same
                                WindowAttentionWeights from, int steps) {
  extern __shared__ uint4 shared[];
  const BlockWeights<kChannels> weights(shared, static_cast<uint32_t>(from.hidden));
  stage_weights<T>(from, weights, threadIdx.x, kMmaWarps * 32);
  __syncthreads();
  for_steps_of_warp(static_cast<int>(threadIdx.x) / 32, kMmaWarps, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x),
                    steps, [&](uint32_t first) {
                      const DeviceWarp<T> warp;
                      WindowStep<DeviceWarp<T>, kChannels>(warp, weights).run(x, out, first);
                    });
}

// The same in float32; the weights stay where they are, and in L1.
template <int kChannels>
__global__ void __launch_bounds__(kFmaWarps * 32, 1)
    window_attention_fma_kernel(ImageView x,    // (B, C, H, W) float32, channels side by side
                                ImageView out,  // the same
                                WindowAttentionWeights weights, int steps) {
  for_steps_of_warp(static_cast<int>(threadIdx.x) / 32, kFmaWarps, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x),
                    steps, [&](uint32_t first) {
                      const DeviceWarp<__half> warp;
                      TokenStep<DeviceWarp<__half>, kChannels>(warp, weights).run(x, out, first);
                    });
}

const std::string kName = "window_attention_cuda";

using Kernel = void (*)(ImageView, ImageView, WindowAttentionWeights, int);

struct Choice {
  Kernel kernel;
  int shared_bytes;
};

template <int kChannels>
Choice choose(DType dtype, int hidden) {
  const int bytes = static_cast<int>(BlockWeights<kChannels>::bytes(static_cast<uint32_t>(hidden)));
  switch (dtype) {
    case DType::kFloat32: return {&window_attention_fma_kernel<kChannels>, 0};
    case DType::kFloat16: return {&window_attention_mma_kernel<__half, kChannels>, bytes};
    case DType::kBFloat16: return {&window_attention_mma_kernel<__nv_bfloat16, kChannels>, bytes};
    default: throw std::runtime_error(kName + ": float32, float16 or bfloat16 only");
  }
}

void launch(const Choice& choice, const ImageView& x, const ImageView& out, const WindowAttentionWeights& weights,
            int device, cudaStream_t stream) {
  int multiprocessors = 0;
  check_cuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), kName);
  const int steps = static_cast<int>(step_count(x));
  if (steps == 0) return;
  const int blocks = std::min(steps, multiprocessors);
  check_cuda(cudaFuncSetAttribute(choice.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, choice.shared_bytes),
             kName + ": shared memory of " + std::to_string(choice.shared_bytes) + " bytes");
  // the launch bounds of the code that this GPU runs
  cudaFuncAttributes attributes;
  check_cuda(cudaFuncGetAttributes(&attributes, choice.kernel), kName);
  choice.kernel<<<blocks, attributes.maxThreadsPerBlock, choice.shared_bytes, stream>>>(x, out, weights, steps);
  check_cuda(cudaGetLastError(), kName);
}

}  // namespace

void window_attention_cuda(const ImageView& x, const ImageView& out, const WindowAttentionWeights& weights, int device,
                           uintptr_t stream) {
  if (x.sc != 1 || out.sc != 1 || x.c != out.c || x.dtype != out.dtype) {
    throw std::runtime_error(kName + ": x and out must have one shape and dtype, and their channels side by side");
  }
  if (weights.heads * 4 != x.c || weights.hidden % kBlockSide != 0 || weights.hidden > kMaxHiddenRatio * x.c) {
    throw std::runtime_error(kName + ": heads of 4 channels, and hidden units in sixteens up to 4 times the channels");
  }
  if (window_count(x) > kMaxWindows) {
    throw std::runtime_error(kName + ": " + std::to_string(window_count(x)) + " windows, the kernel counts to 2^31 - 1");
  }
  const DeviceGuard guard(device, kName);
  const int hidden = static_cast<int>(weights.hidden);
  const Choice choice = x.c == 64   ? choose<64>(x.dtype, hidden)
                        : x.c == 32 ? choose<32>(x.dtype, hidden)
                        : x.c == 16 ? choose<16>(x.dtype, hidden)
                                    : throw std::runtime_error(kName + ": 16, 32 or 64 channels only");
  launch(choice, x, out, weights, device, reinterpret_cast<cudaStream_t>(stream));
}

}  // namespace emsr
