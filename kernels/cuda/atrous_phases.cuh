// The phases of the à-trous details and of their adjoint. A phase is what a thread does between two barriers.
//
// Nothing here needs a GPU: tests/native/atrous_on_host.cpp runs the same phases thread by thread.
#pragma once
#include "atrous_tile.cuh"

namespace emsr {

// The phases of the details: x (B, C, H, W) of T -> out (B, kLevels * C, H, W) of T.
// Phase 0 loads; then for stages 0 (pre-blur) to kLevels, a row pass and a column pass.
template <typename T, int kLevels>
struct AtrousDetails {
  using Tile = AtrousTile<kLevels>;
  static constexpr int kPhases = 1 + 2 * (kLevels + 1);

  template <int kPhase>
  EMSR_HOST_DEVICE static void run(const ImageView& x, const ImageView& out, const AtrousPlace& at, float* image,
                                   float* rows, int thread) {
    if constexpr (kPhase == 0) {
      load_tile<T, Tile>(x, at, at.c, 1.f, image, thread);
    } else {
      constexpr int kLevel = (kPhase - 1) / 2;
      constexpr int kHaloOut = Tile::kHalo - (2 << kLevel);
      constexpr int kHaloIn = kLevel == 0 ? Tile::kHalo : Tile::kHalo - (1 << kLevel);
      using Stage = AtrousStage<Tile, kLevel, kHaloIn, kHaloOut>;
      if constexpr (kPhase % 2 == 1) {
        filter_rows<Stage>(image, rows, thread);
      } else {
        columns<Stage>(x, out, at, image, rows, thread);
      }
    }
  }

 private:
  // Replaces A_(level - 1) by A_level in `image`; what it takes away is the detail, written where the tile owns it.
  template <class Stage>
  EMSR_HOST_DEVICE static void columns(const ImageView& x, const ImageView& out, const AtrousPlace& at, float* image,
                                       const float* rows, int thread) {
    constexpr int kOwnEnd = Tile::kHalo + Tile::kOwnRows;
    for_column_runs<Stage>(at, thread, [&](int first, int col) {
      const bool owns_col = col >= Tile::kHalo && col < Tile::kHalo + Tile::kOwnCols;
      const int begin = at.top > Tile::kHalo ? at.top : Tile::kHalo, end = at.bottom < kOwnEnd ? at.bottom : kOwnEnd;
      const uint32_t own = owns_col ? pixels_in_range<Stage::kStep>(first, begin, end) : 0;
      T* detail = static_cast<T*>(out.data) + pixel_offset(out, at, (Stage::kLevel - 1) * x.c + at.c, first, col);
      const int64_t stride = Stage::kStep * out.sh;
      float* pixel = image + first * Tile::kPitch + col;
      filter_column_run<Stage>(rows + first * Tile::kPitch + col, [&](int k, float smooth) {
        float& finer = pixel[k * Stage::kStep * Tile::kPitch];
        if constexpr (Stage::kLevel > 0) {
          if (own >> k & 1) *detail = static_cast<T>(finer - smooth);
          detail += stride;
        }
        if constexpr (Stage::kLevel < kLevels) finer = smooth;
      });
      if constexpr (Stage::kLevel < kLevels) clear_outside<Stage>(at, pixel, first);
    });
  }
};

// The phases of the adjoint: grad (B, kLevels * C, H, W) of T -> out (B, C, H, W) of T. With d_i the gradient of
// detail i and a_i that of A_i: a_kLevels = -d_kLevels, a_(i-1) = smooth_i(a_i) + d_i - d_(i-1), out = blur(a_0).
// Phase 0 loads; then for stages kLevels down to 0 (pre-blur), a row pass and a column pass.
template <typename T, int kLevels>
struct AtrousAdjoint {
  using Tile = AtrousTile<kLevels>;
  static constexpr int kPhases = 1 + 2 * (kLevels + 1);

  template <int kPhase>
  EMSR_HOST_DEVICE static void run(const ImageView& grad, const ImageView& out, const AtrousPlace& at, float* image,
                                   float* rows, int thread) {
    if constexpr (kPhase == 0) {
      load_tile<T, Tile>(grad, at, (kLevels - 1) * out.c + at.c, -1.f, image, thread);
    } else {
      constexpr int kLevel = kLevels - (kPhase - 1) / 2;
      using Stage = AtrousStage<Tile, kLevel, 2 << kLevel, kLevel == 0 ? 0 : 1 << kLevel>;
      if constexpr (kPhase % 2 == 1) {
        filter_rows<Stage>(image, rows, thread);
      } else if constexpr (kLevel == 0) {
        blurred_columns<Stage>(out, at, rows, thread);
      } else {
        columns<Stage>(grad, out.c, at, image, rows, thread);
      }
    }
  }

 private:
  // Replaces a_level by a_(level - 1) in `image`.
  template <class Stage>
  EMSR_HOST_DEVICE static void columns(const ImageView& grad, int64_t channels, const AtrousPlace& at, float* image,
                                       const float* rows, int thread) {
    for_column_runs<Stage>(at, thread, [&](int first, int col) {
      const uint32_t inside = pixels_in_range<Stage::kStep>(first, at.top, at.bottom);
      const T* own = static_cast<const T*>(grad.data) +
                     pixel_offset(grad, at, (Stage::kLevel - 1) * channels + at.c, first, col);
      const T* finer = own - channels * grad.sc;
      const int64_t stride = Stage::kStep * grad.sh;
      float* pixel = image + first * Tile::kPitch + col;
      filter_column_run<Stage>(rows + first * Tile::kPitch + col, [&](int k, float smooth) {
        float& sum = pixel[k * Stage::kStep * Tile::kPitch];
        // at the coarsest level the tile itself still holds -d
        float direct = Stage::kLevel == kLevels ? -sum : 0.f;
        if (inside >> k & 1) {
          if constexpr (Stage::kLevel < kLevels) direct = static_cast<float>(*own);
          if constexpr (Stage::kLevel > 1) direct -= static_cast<float>(*finer);
        }
        sum = smooth + direct;
        own += stride;
        finer += stride;
      });
      clear_outside<Stage>(at, pixel, first);
    });
  }

  // The last pass: the gradient of x.
  template <class Stage>
  EMSR_HOST_DEVICE static void blurred_columns(const ImageView& out, const AtrousPlace& at, const float* rows,
                                               int thread) {
    for_column_runs<Stage>(at, thread, [&](int first, int col) {
      const uint32_t inside = pixels_in_range<Stage::kStep>(first, at.top, at.bottom);
      T* pixel = static_cast<T*>(out.data) + pixel_offset(out, at, at.c, first, col);
      const int64_t stride = Stage::kStep * out.sh;
      filter_column_run<Stage>(rows + first * Tile::kPitch + col, [&](int k, float blurred) {
        if (inside >> k & 1) *pixel = static_cast<T>(blurred);
        pixel += stride;
      });
    });
  }
};

}  // namespace emsr
