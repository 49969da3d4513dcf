// Runs the phases of kernels/cuda/atrous_phases.cuh on the CPU: a loop over the threads of a block is a barrier apart
// from the next. Shared memory starts as NaN, so a value that no thread wrote before it is read shows in the output.
//
// usage: atrous_on_host details|adjoint LEVELS forward|reverse IN OUT B C H W SB SC SH SW OFFSET
// IN holds a whole storage, float32; sizes, strides and offset (elements) say which image it is. OUT is written
// contiguous. Reverse runs the threads of a phase from last to first: the result must not depend on their order.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "atrous.h"
#include "atrous_phases.cuh"

namespace {

using emsr::AtrousPlace;
using emsr::ImageView;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

template <class Operator, int kPhase = 0>
void run_phases(const ImageView& in, const ImageView& out, const AtrousPlace& at, std::vector<float>& image,
                std::vector<float>& rows, bool reverse) {
  constexpr int kThreads = Operator::Tile::kThreads;
  for (int i = 0; i < kThreads; ++i) {
    Operator::template run<kPhase>(in, out, at, image.data(), rows.data(), reverse ? kThreads - 1 - i : i);
  }
  if constexpr (kPhase + 1 < Operator::kPhases) run_phases<Operator, kPhase + 1>(in, out, at, image, rows, reverse);
}

template <class Operator>
void run_grid(const ImageView& in, const ImageView& out, const ImageView& tiled, bool reverse) {
  using Tile = typename Operator::Tile;
  const auto tiles = static_cast<uint32_t>(emsr::atrous_tiles<Tile>(tiled));
  for (uint32_t block = 0; block < tiles; ++block) {
    // two allocations of exactly the size used, so that the address sanitizer sees a step outside
    std::vector<float> image(Tile::kPlane, kNaN), rows(Tile::kPlane, kNaN);
    run_phases<Operator>(in, out, emsr::atrous_place<Tile>(tiled, block), image, rows, reverse);
  }
}

template <int kLevels = 1>
void run_levels(bool adjoint, int levels, const ImageView& in, const ImageView& out, bool reverse) {
  if (levels != kLevels) {
    if constexpr (kLevels < emsr::kMaxAtrousLevels) return run_levels<kLevels + 1>(adjoint, levels, in, out, reverse);
    throw std::runtime_error("levels out of range");
  }
  if (adjoint) {
    run_grid<emsr::AtrousAdjoint<float, kLevels>>(in, out, out, reverse);
  } else {
    run_grid<emsr::AtrousDetails<float, kLevels>>(in, out, in, reverse);
  }
}

std::vector<float> read_floats(const char* path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  std::vector<float> values(static_cast<size_t>(file.tellg()) / sizeof(float));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
  return values;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 15) return 2;
  const bool adjoint = std::string(argv[1]) == "adjoint";
  const int levels = std::atoi(argv[2]);
  const bool reverse = std::string(argv[3]) == "reverse";
  int64_t v[9];
  for (int i = 0; i < 9; ++i) v[i] = std::atoll(argv[6 + i]);

  std::vector<float> storage = read_floats(argv[4]);
  const ImageView in = {storage.data() + v[8], v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7],
                        emsr::DType::kFloat32};
  const int64_t b = in.b, c = adjoint ? in.c / levels : in.c * levels, h = in.h, w = in.w;
  std::vector<float> result(static_cast<size_t>(b * c * h * w), kNaN);
  run_levels(adjoint, levels, in, {result.data(), b, c, h, w, c * h * w, h * w, w, 1, emsr::DType::kFloat32}, reverse);

  std::ofstream file(argv[5], std::ios::binary);
  file.write(reinterpret_cast<const char*>(result.data()),
             static_cast<std::streamsize>(result.size() * sizeof(float)));
  return file ? 0 : 1;
}
