// Whether the vectors of a cache line leave the output transform one after another, whole lines at a time.
#include <cstdio>
#include <vector>

#include "winograd.h"

using namespace emsr;
using namespace emsr::host;

int main() {
  constexpr int64_t plane = kLineVectors * kLanes<float>;
  static_assert(plane * sizeof(float) == 64, "a line of the processors that stream");
  std::vector<float> planes(kPlanes * plane, 1.0f);
  int pixels = 0, next_channel = 0, last_y = -1, last_x = -1;
  bool whole = true;
  transform_output_tile<kLineVectors>(planes.data(), plane, [&](int y, int x, int channel, Vec<float>) {
    whole = whole && channel == next_channel && (channel == 0 || (y == last_y && x == last_x));
    next_channel = channel + kLanes<float>;
    last_y = y;
    last_x = x;
    if (next_channel == plane) {
      next_channel = 0;
      ++pixels;
    }
  });
  std::printf("%d pixels of %d vectors, %s\n", pixels, kLineVectors, whole ? "whole lines" : "parts of lines");
  return 0;
}
