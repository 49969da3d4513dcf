// The 16-bit types on the CPU.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

struct Half {
  _Float16 value;
  explicit Half(float x) : value(static_cast<_Float16>(x)) {}
  explicit operator float() const { return static_cast<float>(value); }
};

struct BFloat16 {
  uint16_t bits;
  explicit BFloat16(float x) {
    uint32_t word;
    std::memcpy(&word, &x, 4);
    // to nearest, ties to even; a NaN stays one
    bits = static_cast<uint16_t>(std::isnan(x) ? 0x7fc0 : (word + 0x7fff + (word >> 16 & 1)) >> 16);
  }
  explicit operator float() const {
    const uint32_t word = uint32_t{bits} << 16;
    float x;
    std::memcpy(&x, &word, 4);
    return x;
  }
};

template <typename T>
uint16_t bits_of(T x) {
  uint16_t result;
  std::memcpy(&result, &x, 2);
  return result;
}

template <typename T>
float number_of(uint32_t bits) {
  const auto half = static_cast<uint16_t>(bits);
  T x(0.f);
  std::memcpy(static_cast<void*>(&x), &half, 2);
  return static_cast<float>(x);
}
