// The weight's side of Winograd's F(6x6, 3x3): the powers of the points that its transform multiplies with.
#pragma once
#include "winograd.h"

namespace emsr {
namespace EMSR_ISA {

// The 8x3 matrix G of the transforms in winograd.h: a weight w becomes the 64 values of G w G^T.
struct WeightTransform {
  double rows[kTileIn][3] = {{-1, 0, 0}, {}, {}, {}, {}, {}, {}, {0, 0, 1}};

  WeightTransform() {
    const double points[7] = {0, 1, -1, 0.5, -0.5, 2, -2};
    for (int j = 1; j < 7; ++j) {
      double scale = 1;
      for (int k = 0; k < 7; ++k) scale *= k == j ? 1 : points[j] - points[k];
      for (int i = 0; i < 3; ++i) rows[j][i] = (i == 0 ? 1 : i == 1 ? points[j] : points[j] * points[j]) / scale;
    }
  }
};

}  // namespace EMSR_ISA
}  // namespace emsr
