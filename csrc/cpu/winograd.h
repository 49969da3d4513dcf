// Winograd's F(6x6, 3x3): 6x6 pixels of a 3x3 convolution from 8x8 by 64 products a channel pair instead of 324.
//
// A tile's 8x8 pixels become 64 values per channel, one in each of 64 planes [tile][channel]; every plane is multiplied by
// a matrix of its own, and 64 sums become the 6x6 outputs. At the points 0, +-1/2, +-1, +-2 and infinity all factors of
// the output transform are powers of two, which round nothing.
#pragma once
#include "caches.h"
#include "image_view.h"
#include "product.h"

namespace emsr {
namespace EMSR_ISA {

constexpr int64_t kTile = 6;     // outputs on a side of a tile
constexpr int64_t kTileIn = 8;   // pixels on a side of what it reads
constexpr int64_t kPlanes = kTileIn * kTileIn;
constexpr int64_t kPlaneGap = 16;  // floats between planes, so that they do not share cache sets

// Eight pixels in a row to eight values: the polynomials with roots at all points but one, 0, +-1, +-1/2, +-2, infinity.
inline __attribute__((always_inline)) void transform_input(const Vec<float> (&d)[8], Vec<float> (&out)[8]) {
  const Vec<float> one_even = (d[2] + d[6]) - 4.25f * d[4], one_odd = (d[1] + d[5]) - 4.25f * d[3];
  const Vec<float> half_even = (4.0f * d[2] + d[6]) - 5.0f * d[4], half_odd = (2.0f * d[1] + 0.5f * d[5]) - 2.5f * d[3];
  const Vec<float> two_even = (0.25f * d[2] + d[6]) - 1.25f * d[4], two_odd = (0.5f * d[1] + 2.0f * d[5]) - 2.5f * d[3];
  out[0] = (d[6] - d[0]) + 5.25f * (d[2] - d[4]);
  out[1] = one_even + one_odd;
  out[2] = one_even - one_odd;
  out[3] = half_even + half_odd;
  out[4] = half_even - half_odd;
  out[5] = two_even + two_odd;
  out[6] = two_even - two_odd;
  out[7] = (d[7] - d[1]) + 5.25f * (d[3] - d[5]);
}

// Eight sums to six outputs: the powers of the points.
inline __attribute__((always_inline)) void transform_output(const Vec<float> (&m)[8], Vec<float> (&out)[6]) {
  const Vec<float> one_even = m[1] + m[2], one_odd = m[1] - m[2];
  const Vec<float> half_even = m[3] + m[4], half_odd = m[3] - m[4];
  const Vec<float> two_even = m[5] + m[6], two_odd = m[5] - m[6];
  out[0] = (m[0] + one_even) + (half_even + two_even);
  out[1] = (one_odd + 0.5f * half_odd) + 2.0f * two_odd;
  out[2] = (one_even + 0.25f * half_even) + 4.0f * two_even;
  out[3] = (one_odd + 0.125f * half_odd) + 8.0f * two_odd;
  out[4] = (one_even + 0.0625f * half_even) + 16.0f * two_even;
  out[5] = ((m[7] + one_odd) + 0.03125f * half_odd) + 32.0f * two_odd;
}

// One vector of channels of a tile: 8x8 pixels, `row` and `col` floats apart, to the 64 planes.
inline void transform_input_tile(const float* from, int64_t row, int64_t col, float* planes, int64_t plane) {
  Vec<float> half[8][8];
  for (int x = 0; x < 8; ++x) {
    Vec<float> d[8], out[8];
#pragma GCC unroll 8
    for (int y = 0; y < 8; ++y) d[y] = load(from + y * row + x * col);
    transform_input(d, out);
#pragma GCC unroll 8
    for (int y = 0; y < 8; ++y) half[y][x] = out[y];
  }
  for (int y = 0; y < 8; ++y) {
    Vec<float> out[8];
    transform_input(half[y], out);
#pragma GCC unroll 8
    for (int x = 0; x < 8; ++x) store(planes + (y * 8 + x) * plane, out[x]);
  }
}

// kVectors vectors of channels of a tile: 64 planes to 6x6 outputs, each handed to put(y, x, channel, value), `channel` counted
// from the first. The vectors of a pixel follow one another; streamed ones need kLineVectors.
template <int kVectors, typename Put>
inline __attribute__((always_inline)) void transform_output_tile(const float* planes, int64_t plane, const Put& put) {
  Vec<float> half[kVectors][8][6];
  for (int v = 0; v < kVectors; ++v) {
    for (int y = 0; y < 8; ++y) {
      Vec<float> m[8];
#pragma GCC unroll 8
      for (int x = 0; x < 8; ++x) m[x] = load(planes + (y * 8 + x) * plane + v * kLanes<float>);
      transform_output(m, half[v][y]);
    }
  }
  for (int x = 0; x < 6; ++x) {
    Vec<float> out[kVectors][6];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Vec<float> m[8];
#pragma GCC unroll 8
      for (int y = 0; y < 8; ++y) m[y] = half[v][y][x];
      transform_output(m, out[v]);
    }
#pragma GCC unroll 6
    for (int y = 0; y < 6; ++y) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) put(y, x, v * kLanes<float>, out[v][y]);
    }
  }
}

// The tiles of a batch of images, numbered row by row, image by image.
struct Tiles {
  int64_t height, width, across, per_image, count;

  explicit Tiles(const ImageView& x)
      : height(x.h), width(x.w), across((x.w + kTile - 1) / kTile), per_image((x.h + kTile - 1) / kTile * across),
        count(x.b * per_image) {}

  struct Place {
    int64_t b, y, x;           // the first output
    int64_t rows, cols;        // outputs inside the image, at most kTile
  };

  Place place(int64_t tile) const {
    const int64_t in_image = tile % per_image, y = in_image / across * kTile, x = in_image % across * kTile;
    return {tile / per_image, y, x, height - y < kTile ? height - y : kTile, width - x < kTile ? width - x : kTile};
  }
};

// Tiles per task, a multiple of kRowStep: their planes of `channels` channels in about 200 KB, and the tile_floats floats of
// each, with the matrices that pass through, in the L2 cache; but at least one task a thread.
inline int64_t tiles_per_task(const Tiles& tiles, int64_t channels, int64_t tile_floats, int threads) {
  constexpr int64_t float_bytes = sizeof(float);
  int64_t most = (224 << 10) / (kPlanes * channels * float_bytes);
  const int64_t in_cache = caches().l2 / 2 / (tile_floats * float_bytes), share = (tiles.count + threads - 1) / threads;
  if (most > in_cache) most = in_cache;
  if (most > share + kRowStep - 1) most = share + kRowStep - 1;
  return most < kRowStep ? kRowStep : most / kRowStep * kRowStep;
}

inline float* pixel(const ImageView& image, int64_t b, int64_t y, int64_t x) {
  return static_cast<float*>(image.data) + b * image.sb + y * image.sh + x * image.sw;
}

// The side * side pixels from (y, x) on, which may lie outside the image: in place where they do not, else copied to
// `copy`, zeros outside. Channels side by side; row and col receive the distances in floats.
inline const float* window_of(const ImageView& image, int64_t b, int64_t y, int64_t x, int64_t side, float* copy, int64_t* row,
                              int64_t* col) {
  *row = image.sh;
  *col = image.sw;
  if (y >= 0 && x >= 0 && y + side <= image.h && x + side <= image.w) return pixel(image, b, y, x);
  *row = side * image.c;
  *col = image.c;
  for (int64_t i = 0; i < side * side; ++i) {
    const int64_t from_y = y + i / side, from_x = x + i % side;
    float* to = copy + i * image.c;
    if (from_y >= 0 && from_x >= 0 && from_y < image.h && from_x < image.w) {
      std::memcpy(to, pixel(image, b, from_y, from_x), sizeof(float) * image.c);
    } else {
      std::memset(to, 0, sizeof(float) * image.c);
    }
  }
  return copy;
}

// Fill the planes [tile][channel] from `count` tiles, tile `first` on; rows up to a multiple of kRowStep become zero.
// `border` takes the pixels of one tile.
inline void transform_input_tiles(const ImageView& x, const Tiles& tiles, int64_t first, int64_t count, float* planes, int64_t plane,
                                  float* border) {
  for (int64_t t = 0; t < count; ++t) {
    const Tiles::Place at = tiles.place(first + t);
    int64_t row, col;
    const float* from = window_of(x, at.b, at.y - 1, at.x - 1, kTileIn, border, &row, &col);
    for (int64_t c = 0; c < x.c; c += kLanes<float>) transform_input_tile(from + c, row, col, planes + t * x.c + c, plane);
  }
  for (int64_t t = count; t % kRowStep != 0; ++t) {
    for (int64_t k = 0; k < kPlanes; ++k) std::memset(planes + k * plane + t * x.c, 0, sizeof(float) * x.c);
  }
}

// The pixels of `count` tiles from `first` on, for Ahead: a ninth of a row of pixels beside the products of a plane, six
// rows and the one below, which has not been read before. A hint, made for dense pixels: at the end of a row of tiles a few
// wrong ones are asked for, beyond the last tile the last again.
class PixelsAhead {
 public:
  PixelsAhead(const ImageView& image, const Tiles& tiles, int64_t first, int64_t count)
      : image_(image), tiles_(tiles), first_(first), part_((count * kTile * image.c + kParts - 1) / kParts) {}

  const char* from(int64_t plane) const {
    const int64_t skipped = plane % kParts * part_, tile = first_ + skipped / (kTile * image_.c);
    const Tiles::Place at = tiles_.place(tile < tiles_.count ? tile : tiles_.count - 1);
    const int64_t y = at.y + plane / kParts;
    return reinterpret_cast<const char*>(pixel(image_, at.b, y < image_.h ? y : image_.h - 1, at.x) + skipped % (kTile * image_.c));
  }

 private:
  static constexpr int64_t kParts = kPlanes / (kTile + 1);
  const ImageView& image_;
  const Tiles& tiles_;
  const int64_t first_, part_;
};

// Multiply every plane of `tiles` tiles by its matrix. `out` is apart from `in`, or begins a plane before it: then the sums of
// a plane replace the inputs of the one before, in memory that is in the cache. Meanwhile the pixels `ahead` are asked for,
// since the products leave the memory idle.
template <typename... Pixels>
inline void multiply_planes(const float* in, int64_t inputs, const float* packed, int64_t outputs, float* out, int64_t plane, int64_t tiles,
                            const Pixels&... ahead) {
  const int64_t rows = (tiles + kRowStep - 1) / kRowStep * kRowStep;
  for (int64_t k = 0; k < kPlanes; ++k) {
    product<float>(in + k * plane, rows, inputs, packed + k * inputs * outputs, nullptr, outputs, out + k * plane,
                   Ahead<sizeof...(ahead)>{{ahead.from(k)...}});
  }
}

}  // namespace EMSR_ISA
}  // namespace emsr
