// Runs the blocks of kernels/cuda/conv3x3_strip.cuh on the CPU: see group.h and block.h.
//
// usage: conv3x3_on_host float16|bfloat16 forward|reverse BLOCKS ACTIVATION COMBINE WEIGHT IN OTHER OUT
//        B H W SB SH SW OFFSET
// WEIGHT (64, 3, 3, 64), OTHER (B, H, W, 64), IN a whole storage; strides and offset (elements) say which image it is. OUT
// is written contiguous, channels last, NaN where nothing is written.
#include "conv3x3_strip.cuh"
#include "files.h"
#include "group.h"

namespace {

struct Run {
  emsr::ConvImages images;
  const void* weight;
  int blocks;
  bool reverse;
};

template <typename T>
void run_blocks(const Run& r) {
  using Strip = emsr::ConvStrip<HostGroup<T>, emsr::kConvColumns>;
  for (int number = 0; number < r.blocks; ++number) {
    Block block(emsr::kGroupThreads, Strip::kSharedBytes, r.reverse);
    GroupState state;
    state.first = 0;
    block.run([&](int thread) {
      const HostGroup<T> group(block, state, static_cast<uint32_t>(thread), 0);
      Strip strip(group, r.weight);
      emsr::for_segments(r.images.x, emsr::kConvColumns, number, r.blocks,
                         [&](const emsr::Segment& rows) { strip.run(r.images, rows); });
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 17) return 2;
  int64_t v[7];
  for (int i = 0; i < 7; ++i) v[i] = std::atoll(argv[10 + i]);
  const int64_t c = emsr::kConvChannels, b = v[0], h = v[1], w = v[2];
  const auto bytes = static_cast<size_t>(2 * b * h * w * c);
  unsigned char *weight = read_file(argv[6]), *storage = read_file(argv[7]), *other = read_file(argv[8]);
  auto* result = static_cast<unsigned char*>(std::aligned_alloc(16, bytes));
  std::memset(result, 0xff, bytes);

  const auto dtype = emsr::DType::kFloat16;  // or bfloat16: what runs is a matter of its type here
  const auto dense = [&](void* data) { return emsr::ImageView{data, b, c, h, w, h * w * c, 1, w * c, c, dtype}; };
  const Run run = {{{storage + 2 * v[6], b, c, h, w, v[3], 1, v[4], v[5], dtype},
                    dense(other),
                    dense(result),
                    static_cast<emsr::Activation>(std::atoi(argv[4])),
                    static_cast<emsr::Combine>(std::atoi(argv[5]))},
                   weight,
                   std::atoi(argv[3]),
                   std::string(argv[2]) == "reverse"};
  if (std::string(argv[1]) == "float16") {
    run_blocks<Half>(run);
  } else {
    run_blocks<BFloat16>(run);
  }
  std::ofstream file(argv[9], std::ios::binary);
  file.write(reinterpret_cast<const char*>(result), static_cast<std::streamsize>(bytes));
  std::free(result);
  std::free(other);
  std::free(storage);
  std::free(weight);
  return file ? 0 : 1;
}
