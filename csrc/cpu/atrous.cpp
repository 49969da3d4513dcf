// À-trous details on a CPU. Compiled once per instruction set; the loops are written for the compiler to vectorise.
//
// A task is a strip of full-width rows of one channel. It runs all stages on rows that stay in the L2 cache: the
// strip plus the halo that the remaining stages read. Rows outside the image read as zeros at every stage.
#include "atrous.h"

#include "parallel.h"

namespace emsr {
namespace EMSR_ISA {
namespace {

constexpr int64_t kStripRows = 64;  // 26 % of halo rows at 3 levels; two buffers of 1024 columns fit in 1 MB

// Half of a symmetric five-tap filter.
struct Taps {
  double outer, inner, centre;
};
constexpr double kGaussianSum = 2 * 0.002566 + 2 * 0.1655 + 0.6638;
constexpr Taps kGaussian = {0.002566 / kGaussianSum, 0.1655 / kGaussianSum, 0.6638 / kGaussianSum};
constexpr Taps kB3Spline = {1.0 / 16, 4.0 / 16, 6.0 / 16};

inline int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

// Rows that all stages together look beyond their own: 2 for the blur, 2 ** n for level n.
inline int64_t total_halo(int levels) { return int64_t{2} << levels; }

// The rows of one stage of a strip: [first, last) of the image, kept in a scratch buffer.
template <typename T>
class Strip {
 public:
  Strip(int64_t height, int64_t width, int64_t own_first, int64_t own_last, int64_t halo)
      : height_(height), width_(width), own_first_(own_first), own_last_(own_last), halo_(halo), origin_(own_first - halo) {
    const int64_t rows = own_last - own_first + 2 * halo;
    pad_ = (halo + 15) / 16 * 16;
    const int64_t line = width + 2 * pad_;
    T* memory = static_cast<T*>(scratch(Scratch::kOwn, sizeof(T) * (2 * rows * width + width + line)));
    now_ = memory;
    next_ = now_ + rows * width;
    zeros_ = next_ + rows * width;
    columns_ = zeros_ + width + pad_;
    for (int64_t j = 0; j < width; ++j) zeros_[j] = 0;
    for (int64_t j = -pad_; j < width + pad_; ++j) columns_[j] = 0;
  }

  int64_t first() const { return max_of(own_first_ - halo_, 0); }
  int64_t last() const { return min_of(own_last_ + halo_, height_); }
  bool owns(int64_t row) const { return row >= own_first_ && row < own_last_; }
  T* row(int64_t i) { return now_ + (i - origin_) * width_; }

  // Replace every row by its smoothed self; visit(i, before, after) sees each that is still needed.
  template <typename Visit>
  void smooth(const Taps& taps, int64_t step, const Visit& visit) {
    const T outer = T(taps.outer), inner = T(taps.inner), centre = T(taps.centre);
    halo_ -= 2 * step;
    for (int64_t i = first(); i < last(); ++i) {
      const T *a = read(i - 2 * step), *b = read(i - step), *c = read(i), *d = read(i + step), *e = read(i + 2 * step);
      for (int64_t j = 0; j < width_; ++j) columns_[j] = outer * (a[j] + e[j]) + inner * (b[j] + d[j]) + centre * c[j];
      const T* v = columns_;
      T* out = next_ + (i - origin_) * width_;
      for (int64_t j = 0; j < width_; ++j) {
        out[j] = outer * (v[j - 2 * step] + v[j + 2 * step]) + inner * (v[j - step] + v[j + step]) + centre * v[j];
      }
      visit(i, c, out);
    }
    T* before = now_;
    now_ = next_;
    next_ = before;
  }

 private:
  const T* read(int64_t i) const { return i < 0 || i >= height_ ? zeros_ : now_ + (i - origin_) * width_; }

  int64_t height_, width_, own_first_, own_last_, halo_, origin_, pad_;
  T *now_, *next_, *zeros_, *columns_;  // columns_ has pad_ zeros on both sides
};

template <typename T>
T* row_of(const ImageView& image, int64_t b, int64_t c, int64_t row) {
  return static_cast<T*>(image.data) + b * image.sb + c * image.sc + row * image.sh;
}

template <typename T>
void details_of_strip(const ImageView& x, const ImageView& out, int levels, int64_t b, int64_t c, int64_t first, int64_t last) {
  Strip<T> strip(x.h, x.w, first, last, total_halo(levels));
  for (int64_t i = strip.first(); i < strip.last(); ++i) {
    const T* from = row_of<T>(x, b, c, i);
    T* to = strip.row(i);
    for (int64_t j = 0; j < x.w; ++j) to[j] = from[j * x.sw];
  }
  strip.smooth(kGaussian, 1, [](int64_t, const T*, const T*) {});
  for (int level = 1; level <= levels; ++level) {
    strip.smooth(kB3Spline, int64_t{1} << (level - 1), [&](int64_t i, const T* finer, const T* coarser) {
      if (!strip.owns(i)) return;
      T* to = row_of<T>(out, b, (level - 1) * x.c + c, i);
      for (int64_t j = 0; j < x.w; ++j) to[j] = finer[j] - coarser[j];
    });
  }
}

// The same stages backwards: every one is its own adjoint.
template <typename T>
void gradient_of_strip(const ImageView& grad, const ImageView& out, int levels, int64_t b, int64_t c, int64_t first, int64_t last) {
  Strip<T> strip(out.h, out.w, first, last, total_halo(levels));
  for (int64_t i = strip.first(); i < strip.last(); ++i) {
    const T* from = row_of<T>(grad, b, (levels - 1) * out.c + c, i);
    T* to = strip.row(i);
    for (int64_t j = 0; j < out.w; ++j) to[j] = -from[j * grad.sw];
  }
  for (int level = levels; level >= 1; --level) {
    strip.smooth(kB3Spline, int64_t{1} << (level - 1), [&](int64_t i, const T*, T* smoothed) {
      const T* as_finer = row_of<T>(grad, b, (level - 1) * out.c + c, i);
      for (int64_t j = 0; j < out.w; ++j) smoothed[j] += as_finer[j * grad.sw];
      if (level == 1) return;
      const T* as_coarser = row_of<T>(grad, b, (level - 2) * out.c + c, i);
      for (int64_t j = 0; j < out.w; ++j) smoothed[j] -= as_coarser[j * grad.sw];
    });
  }
  strip.smooth(kGaussian, 1, [&](int64_t i, const T*, const T* smoothed) {
    T* to = row_of<T>(out, b, c, i);
    for (int64_t j = 0; j < out.w; ++j) to[j] = smoothed[j];
  });
}

// Calls per_strip(b, c, first row, last row) for every strip of an image.
template <typename PerStrip>
void for_each_strip(const ImageView& image, int threads, const PerStrip& per_strip) {
  const int64_t strips = (image.h + kStripRows - 1) / kStripRows;
  parallel_for(image.b * image.c * strips, threads, [&](int64_t task) {
    const int64_t plane = task / strips, first = task % strips * kStripRows;
    per_strip(plane / image.c, plane % image.c, first, min_of(first + kStripRows, image.h));
  });
}

}  // namespace

void atrous_details(const ImageView& x, const ImageView& out, int levels, int threads) {
  for_each_strip(x, threads, [&](int64_t b, int64_t c, int64_t first, int64_t last) {
    if (x.dtype == DType::kFloat32) details_of_strip<float>(x, out, levels, b, c, first, last);
    else details_of_strip<double>(x, out, levels, b, c, first, last);
  });
}

void atrous_details_backward(const ImageView& grad, const ImageView& out, int levels, int threads) {
  for_each_strip(out, threads, [&](int64_t b, int64_t c, int64_t first, int64_t last) {
    if (out.dtype == DType::kFloat32) gradient_of_strip<float>(grad, out, levels, b, c, first, last);
    else gradient_of_strip<double>(grad, out, levels, b, c, first, last);
  });
}

}  // namespace EMSR_ISA
}  // namespace emsr
