// Two values of a 16-bit type in a word.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace emsr {

template <typename T>
struct Pair;
template <>
struct Pair<__half> {
  using Type = __half2;
  static constexpr uint32_t kOnes = 0x3c003c00;
  __device__ static __half2 from(float low, float high) { return __floats2half2_rn(low, high); }
  __device__ static float2 to_floats(__half2 pair) { return __half22float2(pair); }
};
template <>
struct Pair<__nv_bfloat16> {
  using Type = __nv_bfloat162;
  static constexpr uint32_t kOnes = 0x3f803f80;
  __device__ static __nv_bfloat162 from(float low, float high) { return __floats2bfloat162_rn(low, high); }
  __device__ static float2 to_floats(__nv_bfloat162 pair) { return __bfloat1622float2(pair); }
};

}  // namespace emsr
