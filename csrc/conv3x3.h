#pragma once
#include "image_view.h"

namespace emsr {

enum class Activation : int { kNone = 0, kRelu = 1, kLeakyRelu = 2 };  // leaky: slope 0.2 below zero

// What a convolution's activated result v does with a second image c: nothing, v + c, c + v * c, or v where c > 0, else 0:
// the gradient of what a ReLU has made c of. kGate and kMask have no activation.
enum class Combine : int { kNothing = 0, kResidual = 1, kGate = 2, kMask = 3 };

// Floats that the packed form of a (outputs, inputs, 3, 3) weight takes; laid out for cpu_isa().
int64_t conv3x3_packed_size(int64_t outputs, int64_t inputs);

// Write the packed form of `weight`, (outputs, inputs, 3, 3), float32, any strides: with the strides of outputs and inputs
// exchanged, from the last tap backwards, it is the weight that takes a gradient from the outputs back to the inputs.
void conv3x3_pack_cpu(const ImageView& weight, float* packed, int threads);

// 3x3 convolution of x (B, inputs, H, W), zero padding 1, into out (B, outputs, H, W); float32.
// inputs and outputs are multiples of 16, or inputs < 16, or outputs == 1. Where there are 16 channels or more, and in
// `other` (the shape of out; ignored for kNothing), the channels lie side by side (stride 1).
void conv3x3_cpu(const ImageView& x, const ImageView& out, const ImageView& other, const float* packed, Activation activation,
                 Combine combine, int threads);

// The gradient of the weight, into out (outputs, inputs, 3, 3), any strides, from that of the convolution, grad (B, outputs,
// H, W), and x (B, inputs, H, W): float32, channels and layouts as in conv3x3_cpu. Sums are added in an order that depends
// on `threads` alone.
void conv3x3_weight_gradient_cpu(const ImageView& x, const ImageView& grad, const ImageView& out, int threads);

// The same on a GPU of compute capability 9.0, 64 to 64 channels, float16 or bfloat16, sums in float32: all images with
// their channels side by side and pixels on multiples of 16 bytes, `weight` (64, 3, 3, 64), contiguous, on a multiple of 4.
void conv3x3_cuda(const ImageView& x, const ImageView& out, const ImageView& other, const void* weight, Activation activation,
                  Combine combine, int device, uintptr_t stream);

}  // namespace emsr
