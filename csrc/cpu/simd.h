// Vectors of the instruction set this file is compiled for, through GCC and Clang vector extensions.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define EMSR_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define EMSR_VECTOR_BYTES 32
#else
#define EMSR_VECTOR_BYTES 16
#endif

namespace emsr {
namespace EMSR_ISA {

template <typename T, int N>
struct VectorOf {
  // aligned to its element only, so that loads and stores work at any address of a T
  typedef T type __attribute__((vector_size(N * sizeof(T)), aligned(alignof(T)), may_alias));
  typedef T value __attribute__((vector_size(N * sizeof(T))));
};

template <typename T>
constexpr int kLanes = EMSR_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <typename T>
using Vec = typename VectorOf<T, kLanes<T>>::value;

template <typename T>
inline Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VectorOf<T, kLanes<T>>::type*>(p);
}

template <typename T>
inline void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VectorOf<T, kLanes<T>>::type*>(p) = v;
}

template <typename T>
inline Vec<T> all(T value) {
  return value - Vec<T>{};
}

// The larger of both; b where one is NaN.
template <typename T>
inline Vec<T> max_of(Vec<T> a, Vec<T> b) {
  return a > b ? a : b;
}

// The sum of all lanes, by halves.
template <typename T, int N>
inline T sum_of(typename VectorOf<T, N>::value v) {
  if constexpr (N == 1) {
    return v[0];
  } else if constexpr (N == 2) {
    return v[0] + v[1];
  } else {
    typename VectorOf<T, N / 2>::value low, high;
    std::memcpy(&low, &v, sizeof low);
    std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
    return sum_of<T, N / 2>(low + high);
  }
}

// e ** x for x <= 0, relative error 2e-7: range reduction by ln 2 in two parts, then a polynomial of degree 5 for
// the rest (Cephes expf). Below -87 the result is e ** -87, about 1e-38; NaN stays NaN.
inline Vec<float> exp_of(Vec<float> x) {
  typedef int32_t Ints __attribute__((vector_size(sizeof(Vec<float>))));
  x = max_of<float>(all(-87.0f), x);
  const float round = 12582912.0f;  // 1.5 * 2 ** 23: adding it leaves an integer in the low bits
  const Vec<float> n = (x * 1.44269504088896341f + round) - round;
  const Vec<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec<float> p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
  Vec<float> scale;
  std::memcpy(&scale, &power, sizeof scale);
  return p * scale;
}

// 1 / (1 + e ** -x), relative error 3e-7 down to x = -87; NaN stays NaN.
inline Vec<float> sigmoid_of(Vec<float> x) {
  const Vec<float> e = exp_of(-max_of<float>(-x, x));
  return (x >= 0 ? all(1.0f) : e) / (1.0f + e);
}

inline Vec<double> exp_of(Vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = ::exp(x[i]);
  return x;
}

}  // namespace EMSR_ISA
}  // namespace emsr
