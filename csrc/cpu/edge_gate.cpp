// What edge features say to amplify, on a CPU: two 3x3 convolutions of one image, one of them through a 1x1 convolution
// and a sigmoid, multiplied. Compiled once per instruction set.
//
// A task is a group of Winograd tiles. Their transformed input serves both convolutions; the first one's result meets the
// 1x1 convolution a few tiles at a time. Nothing but the product leaves scratch (about 530 KB at 64 channels).
#include "edge_gate.h"

#include "epilogue.h"
#include "parallel.h"
#include "winograd.h"

namespace emsr {
namespace EMSR_ISA {
namespace {

constexpr int64_t kTilePixels = kTile * kTile;
static_assert(kTilePixels % kRowStep == 0, "a tile's pixels are the rows of a product");

class EdgeGate {
 public:
  EdgeGate(const ImageView& x, const ImageView& out, const float* packed_k1, const float* packed_k2, const float* bias,
           const float* packed_k3, int threads)
      : x_(x), out_(out), k1_(packed_k1), k2_(packed_k2), bias_(bias), k3_(packed_k3), tiles_(x),
        group_(tiles_per_task(tiles_, x.c, (2 * kPlanes + kTilePixels) * x.c, threads)), plane_(group_ * x.c + kPlaneGap),
        threads_(threads), streamed_(may_stream(static_cast<float*>(out.data))) {}

  int64_t tasks() const { return (tiles_.count + group_ - 1) / group_; }

  void run(int64_t task) const {
    const int64_t c = x_.c, pixels = kTilePixels * c, planes = kPlanes * plane_;
    const int64_t floats = plane_ + 2 * planes + (group_ + 1) * pixels + kPlanes * c;
    float* products = static_cast<float*>(scratch(Scratch::kOwn, sizeof(float) * floats));
    float* input = products + plane_;  // behind their products: see multiply_planes
    float* sums = input + planes;
    float* gates = sums + planes;
    float* asked = gates + group_ * pixels;
    float* border = asked + pixels;
    const int64_t first = task * group_, count = tiles_.count - first < group_ ? tiles_.count - first : group_;
    transform_input_tiles(x_, tiles_, first, count, input, plane_, border);
    multiply_planes(input, c, k1_, c, sums, plane_, count);
    for (int64_t t = 0; t < count; ++t) write_gates(sums + t * c, asked, gates + t * pixels);
    multiply_planes(input, c, k3_, c, products, plane_, count,
                    PixelsAhead(x_, tiles_, (task + threads_) * group_, group_));  // threads take tasks in turn
    for (int64_t t = 0; t < count; ++t) write_products(first + t, products + t * c, gates + t * pixels);
    finish_streaming();
  }

 private:
  // The argument of the sigmoid for the pixels of a tile, [pixel][channel]; `asked` takes as many.
  void write_gates(const float* sums, float* asked, float* gates) const {
    for (int64_t c = 0; c < x_.c; c += kLanes<float>) {
      transform_output_tile<1>(sums + c, plane_, [&](int y, int x, int, Vec<float> v) {
        store(asked + (y * kTile + x) * x_.c + c, leaky_relu(v));
      });
    }
    product<float>(asked, kTilePixels, x_.c, k2_, bias_, x_.c, gates);
  }

  void write_products(int64_t tile, const float* sums, const float* gates) const {
    const Tiles::Place at = tiles_.place(tile);
    float* to = pixel(out_, at.b, at.y, at.x);
    for (int64_t first = 0; first < x_.c; first += kLineVectors * kLanes<float>) {
      transform_output_tile<kLineVectors>(sums + first, plane_, [&](int y, int x, int channel, Vec<float> v) {
        if (y >= at.rows || x >= at.cols) return;
        const int64_t c = first + channel;
        const Vec<float> result = v * sigmoid_of(load(gates + (y * kTile + x) * x_.c + c));
        write(to + y * out_.sh + x * out_.sw + c, result, streamed_);
      });
    }
  }

  const ImageView &x_, &out_;
  const float *k1_, *k2_, *bias_, *k3_;
  const Tiles tiles_;
  const int64_t group_, plane_;
  const int threads_;
  const bool streamed_;
};

}  // namespace

void edge_gate(const ImageView& x, const ImageView& out, const float* packed_k1, const float* k2, const float* bias,
               const float* packed_k3, int threads) {
  float* packed_k2 = static_cast<float*>(scratch(Scratch::kShared, sizeof(float) * x.c * x.c));
  pack_weight(k2, x.c, x.c, 1.0f, packed_k2);
  const EdgeGate gate(x, out, packed_k1, packed_k2, bias, packed_k3, threads);
  parallel_for(gate.tasks(), threads, [&](int64_t task) { gate.run(task); });
}

}  // namespace EMSR_ISA
}  // namespace emsr
