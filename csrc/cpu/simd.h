// Vectors of the instruction set this file is compiled for, through GCC and Clang vector extensions.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "caches.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define EMSR_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define EMSR_VECTOR_BYTES 32
#else
#define EMSR_VECTOR_BYTES 16
#endif

namespace emsr {
namespace EMSR_ISA {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRegisters = 32;  // that hold a vector
#else
constexpr int kRegisters = 16;
#endif

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

// Vectors that fill a cache line. What is streamed leaves the processor by lines, so write the vectors of a line one after
// another: a line that waits for its other half is sent in parts, each as slow as a whole one.
constexpr int kLineBytes = 64;
constexpr int kLineVectors = kLineBytes / EMSR_VECTOR_BYTES;

// Whether lines written to `p` and to multiples of kLineBytes behind it may be streamed.
template <typename T>
inline bool may_stream(const T* p) { return reinterpret_cast<uintptr_t>(p) % kLineBytes == 0 && caches().line == kLineBytes; }

// Write a vector; `streamed`, past the caches: a large image has left them before it is read again, and so need not be
// read to be written. Call finish_streaming before another thread reads it.
template <typename T>
inline void write(T* p, Vec<T> v, bool streamed) {
  if (!streamed) return store(p, v);
#if defined(__AVX512F__)
  _mm512_stream_ps(reinterpret_cast<float*>(p), (__m512)v);
#elif defined(__AVX2__)
  _mm256_stream_ps(reinterpret_cast<float*>(p), (__m256)v);
#elif defined(__SSE2__)
  _mm_stream_ps(reinterpret_cast<float*>(p), (__m128)v);
#else
  store(p, v);
#endif
}

inline void finish_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <typename T>
inline Vec<T> all(T value) {
  return value - Vec<T>{};
}

// The same vector, which, if `often`, the compiler may not read from memory anew for every product that it takes part in.
template <typename T, bool often>
inline Vec<T> kept(Vec<T> v) {
#if defined(__SSE2__)
  if (often) asm("" : "+v"(v));
#elif defined(__aarch64__)
  if (often) asm("" : "+w"(v));
#endif
  return v;
}

// The larger of both; b where one is NaN.
template <typename T>
inline Vec<T> max_of(Vec<T> a, Vec<T> b) {
  return a > b ? a : b;
}

// Lane l of the result is lane indices[l] of a, or, from kLanes on, of b.
template <typename T, int... indices>
inline Vec<T> shuffled(Vec<T> a, Vec<T> b) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, indices...);
#else
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Index __attribute__((vector_size(sizeof(Vec<T>))));
  return __builtin_shuffle(a, b, Index{indices...});
#endif
}

template <typename T, int kHalf, size_t... lanes>
inline Vec<T> plus_other_half(Vec<T> v, std::index_sequence<lanes...>) {
  return v + shuffled<T, int(lanes ^ kHalf)...>(v, v);
}

// The sum of all lanes, by halves.
template <typename T, int kHalf = kLanes<T> / 2>
inline T sum_of(Vec<T> v) {
  if constexpr (kHalf == 0) return v[0];
  else return sum_of<T, kHalf / 2>(plus_other_half<T, kHalf>(v, std::make_index_sequence<kLanes<T>>()));
}

// Swap the off-diagonal blocks of kHalf x kHalf in every square of 2 kHalf.
template <typename T, int kHalf, size_t... lanes>
inline __attribute__((always_inline)) void swap_blocks(Vec<T> (&rows)[kLanes<T>], std::index_sequence<lanes...>) {
  constexpr int n = kLanes<T>;
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) {
    if (i & kHalf) continue;
    const Vec<T> a = rows[i], b = rows[i + kHalf];
    rows[i] = shuffled<T, (lanes & kHalf ? n + int(lanes) - kHalf : int(lanes))...>(a, b);
    rows[i + kHalf] = shuffled<T, (lanes & kHalf ? n + int(lanes) : int(lanes) + kHalf)...>(a, b);
  }
}

// Transpose kLanes rows of kLanes values.
template <typename T, int kHalf = kLanes<T> / 2>
inline __attribute__((always_inline)) void transpose(Vec<T> (&rows)[kLanes<T>]) {
  if constexpr (kHalf > 0) {
    swap_blocks<T, kHalf>(rows, std::make_index_sequence<kLanes<T>>());
    transpose<T, kHalf / 2>(rows);
  }
}

// Write the transpose of `from`, (rows, cols) with from_row values from row to row, to `to`; rows and cols are multiples
// of kLanes.
template <typename T>
inline void transpose_matrix(const T* from, int64_t from_row, int64_t rows, int64_t cols, T* to, int64_t to_row) {
  constexpr int n = kLanes<T>;
  for (int64_t r = 0; r < rows; r += n) {
    for (int64_t c = 0; c < cols; c += n) {
      Vec<T> block[n];
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) block[i] = load(from + (r + i) * from_row + c);
      transpose<T>(block);
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) store(to + (c + i) * to_row + r, block[i]);
    }
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
