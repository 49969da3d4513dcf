// The gradient of a 3x3 convolution's weight, on a CPU, by Winograd's F(6x6, 3x3). Compiled once per instruction set.
//
// A convolution multiplies 64 transformed pixels of a tile by 64 transformed weights, and sums over the inputs. Here the 64
// transformed pixels of x are multiplied by 64 transformed values of the result's gradient, and summed over the tiles: as
// many products. Each thread has sums of its own over a share of the tiles, the same share in every run; at the end the
// shares' sums are added in order, and become the 3x3 taps.
#include "conv3x3.h"
#include "parallel.h"
#include "sums_of_products.h"
#include "winograd_weight.h"

namespace emsr {
namespace EMSR_ISA {
namespace {

// Tiles whose planes are in the cache together, a multiple of kRowStep.
int64_t group_of(int64_t inputs, int64_t outputs) {
  const int64_t most = 3072 / (inputs + outputs);
  return most < kRowStep ? kRowStep : most > 4 * kRowStep ? 4 * kRowStep : most / kRowStep * kRowStep;
}

// Six values in a row to eight: the transpose of transform_output.
inline __attribute__((always_inline)) void transform_gradient(const Vec<float> (&d)[6], Vec<float> (&out)[8]) {
  const Vec<float> one_even = (d[0] + d[2]) + d[4], one_odd = (d[1] + d[3]) + d[5];
  const Vec<float> half_even = (d[0] + 0.25f * d[2]) + 0.0625f * d[4];
  const Vec<float> half_odd = (0.5f * d[1] + 0.125f * d[3]) + 0.03125f * d[5];
  const Vec<float> two_even = (d[0] + 4.0f * d[2]) + 16.0f * d[4], two_odd = (2.0f * d[1] + 8.0f * d[3]) + 32.0f * d[5];
  out[0] = d[0];
  out[1] = one_even + one_odd;
  out[2] = one_even - one_odd;
  out[3] = half_even + half_odd;
  out[4] = half_even - half_odd;
  out[5] = two_even + two_odd;
  out[6] = two_even - two_odd;
  out[7] = d[5];
}

// One vector of channels of a tile: 6x6 values of the gradient, `row` and `col` floats apart, to the 64 planes.
inline void transform_gradient_tile(const float* from, int64_t row, int64_t col, float* planes, int64_t plane) {
  Vec<float> half[8][6];
  for (int x = 0; x < 6; ++x) {
    Vec<float> d[6], out[8];
#pragma GCC unroll 6
    for (int y = 0; y < 6; ++y) d[y] = load(from + y * row + x * col);
    transform_gradient(d, out);
#pragma GCC unroll 8
    for (int y = 0; y < 8; ++y) half[y][x] = out[y];
  }
  for (int y = 0; y < 8; ++y) {
    Vec<float> out[8];
    transform_gradient(half[y], out);
#pragma GCC unroll 8
    for (int x = 0; x < 8; ++x) store(planes + (y * 8 + x) * plane, out[x]);
  }
}

void transform_gradient_tiles(const ImageView& grad, const Tiles& tiles, int64_t first, int64_t count, float* planes, int64_t plane,
                              float* border) {
  for (int64_t t = 0; t < count; ++t) {
    const Tiles::Place at = tiles.place(first + t);
    int64_t row, col;
    const float* from = window_of(grad, at.b, at.y, at.x, kTile, border, &row, &col);
    for (int64_t c = 0; c < grad.c; c += kLanes<float>) transform_gradient_tile(from + c, row, col, planes + t * grad.c + c, plane);
  }
}

// The sums of a share of the tiles, [plane][input][output].
void sum_share(const ImageView& x, const ImageView& grad, const Tiles& tiles, int64_t group, int64_t first, int64_t last, float* sums) {
  const int64_t in_plane = group * x.c + kPlaneGap, out_plane = group * grad.c + kPlaneGap;
  const int64_t widest = x.c > grad.c ? x.c : grad.c;
  float* values = static_cast<float*>(scratch(Scratch::kOwn, sizeof(float) * kPlanes * (in_plane + out_plane + widest)));
  float* grads = values + kPlanes * in_plane;
  float* border = grads + kPlanes * out_plane;
  std::memset(sums, 0, sizeof(float) * kPlanes * x.c * grad.c);
  for (; first < last; first += group) {
    const int64_t count = last - first < group ? last - first : group;
    transform_input_tiles(x, tiles, first, count, values, in_plane, border);
    transform_gradient_tiles(grad, tiles, first, count, grads, out_plane, border);
    for (int64_t k = 0; k < kPlanes; ++k) {
      add_products(values + k * in_plane, x.c, grads + k * out_plane, grad.c, count, sums + k * x.c * grad.c);
    }
  }
}

// The taps of one input's weights, G^T sums G, from the sums of all shares.
void write_taps(const float* sums, int64_t shares, int64_t input, const ImageView& out) {
  const int64_t inputs = out.c, outputs = out.b, plane = inputs * outputs;
  const WeightTransform transform;
  const auto& g = transform.rows;
  for (int64_t o = 0; o < outputs; o += kLanes<float>) {
    Vec<float> half[3][kTileIn] = {}, taps[3][3] = {};
    for (int64_t k = 0; k < kPlanes; ++k) {
      const float* from = sums + k * plane + input * outputs + o;
      Vec<float> sum = load(from);
      for (int64_t share = 1; share < shares; ++share) sum += load(from + share * kPlanes * plane);
      for (int i = 0; i < 3; ++i) half[i][k % kTileIn] += static_cast<float>(g[k / kTileIn][i]) * sum;
    }
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) {
        for (int k = 0; k < kTileIn; ++k) taps[i][j] += static_cast<float>(g[k][j]) * half[i][k];
        for (int lane = 0; lane < kLanes<float>; ++lane) pixel(out, o + lane, i, j)[input * out.sc] = taps[i][j][lane];
      }
    }
  }
}

// sums [channel of few][tap][channel of many] += those over one row: few, a tap away, times many. `near` takes three rows of few
// with a zero on both sides. V vectors of channels at a time.
template <int V>
void add_row(const float* near, int64_t width, const float* many, int64_t step, float* sums, int64_t channels) {
  Vec<float> sum[9][V] = {};
  for (int64_t x = 0; x < width; ++x) {
    Vec<float> values[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) values[v] = load(many + x * step + v * kLanes<float>);
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[tap][v] += near[tap / 3 * (width + 2) + x + tap % 3] * values[v];
    }
  }
  for (int tap = 0; tap < 9; ++tap) {
    for (int v = 0; v < V; ++v) {
      float* to = sums + tap * channels + v * kLanes<float>;
      store(to, load(to) + sum[tap][v]);
    }
  }
}

// Between few channels, any strides, and many: sums as add_row has them, over the rows of a share.
void sum_rows(const ImageView& few, const ImageView& many, int64_t first, int64_t last, float* sums) {
  constexpr int V = kColumnVectors == 4 && kLanes<float> < 16 ? 2 : 1;
  float* near = static_cast<float*>(scratch(Scratch::kOwn, sizeof(float) * 3 * (few.w + 2)));
  std::memset(sums, 0, sizeof(float) * few.c * 9 * many.c);
  for (int64_t row = first; row < last; ++row) {
    const int64_t b = row / few.h, y = row % few.h;
    for (int64_t n = 0; n < few.c; ++n) {
      for (int64_t dy = 0; dy < 3; ++dy) {
        float* to = near + dy * (few.w + 2);
        const bool inside = y + dy >= 1 && y + dy <= few.h;
        const float* from = inside ? pixel(few, b, y + dy - 1, 0) + n * few.sc : nullptr;
        to[0] = to[few.w + 1] = 0;
        for (int64_t x = 0; x < few.w; ++x) to[x + 1] = inside ? from[x * few.sw] : 0;
      }
      for (int64_t c = 0; c < many.c; c += V * kLanes<float>) {
        add_row<V>(near, few.w, pixel(many, b, y, 0) + c, many.sw, sums + n * 9 * many.c + c, many.c);
      }
    }
  }
}

// The gradient of the weight from few inputs to many outputs, or from many inputs to one.
void few_weight_gradient(const ImageView& x, const ImageView& grad, const ImageView& out, int threads) {
  const bool to_one = grad.c == 1;
  const ImageView &few = to_one ? grad : x, &many = to_one ? x : grad;
  const int64_t rows = x.b * x.h, share = (rows + threads - 1) / threads, shares = (rows + share - 1) / share;
  const int64_t floats = few.c * 9 * many.c;
  float* sums = static_cast<float*>(scratch(Scratch::kShared, sizeof(float) * shares * floats));
  parallel_for(shares, threads, [&](int64_t task) {
    const int64_t first = task * share;
    sum_rows(few, many, first, first + share < rows ? first + share : rows, sums + task * floats);
  });
  for (int64_t i = 0; i < floats; ++i) {
    float sum = sums[i];
    for (int64_t s = 1; s < shares; ++s) sum += sums[s * floats + i];
    const int64_t n = i / (9 * many.c), tap = i / many.c % 9, c = i % many.c;
    // to one output, few is the gradient, and looks for x in the other direction
    if (to_one) pixel(out, 0, (8 - tap) / 3, (8 - tap) % 3)[c * out.sc] = sum;
    else pixel(out, c, tap / 3, tap % 3)[n * out.sc] = sum;
  }
}

}  // namespace

void conv3x3_weight_gradient(const ImageView& x, const ImageView& grad, const ImageView& out, int threads) {
  if (x.c < 16 || grad.c == 1) return few_weight_gradient(x, grad, out, threads);
  const Tiles tiles(x);
  const int64_t group = group_of(x.c, grad.c);
  // none empty, each in whole groups
  const int64_t groups = (tiles.count + group - 1) / group, share = (groups + threads - 1) / threads * group;
  const int64_t shares = (tiles.count + share - 1) / share, floats = kPlanes * x.c * grad.c;
  float* sums = static_cast<float*>(scratch(Scratch::kShared, sizeof(float) * shares * floats));
  parallel_for(shares, threads, [&](int64_t task) {
    const int64_t first = task * share, last = first + share < tiles.count ? first + share : tiles.count;
    sum_share(x, grad, tiles, group, first, last, sums + task * floats);
  });
  parallel_for(x.c, threads, [&](int64_t input) { write_taps(sums, shares, input, out); });
}

}  // namespace EMSR_ISA
}  // namespace emsr
