// Runs the blocks of kernels/cuda/residual_block_strip.cuh on the CPU: see group.h and block.h.
//
// usage: residual_block_on_host float16|bfloat16 forward|reverse BLOCKS FIRST SECOND IN OUT B H W SB SH SW OFFSET
// FIRST and SECOND (64, 3, 3, 64), IN a whole storage; strides and offset (elements) say which image it is. OUT is written
// contiguous, channels last, NaN where nothing is written.
#include "files.h"
#include "group.h"
#include "residual_block_strip.cuh"

namespace {

template <typename T>
void run_blocks(const emsr::BlockImages& images, const void* first, const void* second, int blocks, bool reverse) {
  using Strip = emsr::ResidualStrip<HostGroup<T>>;
  for (int number = 0; number < blocks; ++number) {
    Block block(2 * emsr::kGroupThreads, Strip::kSharedBytes, reverse);
    GroupState states[2] = {{"first ", 0}, {"second ", static_cast<int>(emsr::kGroupThreads)}};
    block.run([&](int thread) {
      const int which = thread / static_cast<int>(emsr::kGroupThreads);
      const HostGroup<T> group(block, states[which], static_cast<uint32_t>(thread) % emsr::kGroupThreads, 0);
      const Strip strip(group, which == 0 ? first : second);
      emsr::for_segments(images.x, emsr::kBlockColumns, number, blocks, [&](const emsr::Segment& rows) {
        if (which == 0) {
          strip.run_first(images, rows);
        } else {
          strip.run_second(images, rows);
        }
      });
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 15) return 2;
  int64_t v[7];
  for (int i = 0; i < 7; ++i) v[i] = std::atoll(argv[8 + i]);
  const int64_t c = emsr::kConvChannels, b = v[0], h = v[1], w = v[2];
  const auto bytes = static_cast<size_t>(2 * b * h * w * c);
  unsigned char *first = read_file(argv[4]), *second = read_file(argv[5]), *storage = read_file(argv[6]);
  auto* result = static_cast<unsigned char*>(std::aligned_alloc(16, bytes));
  std::memset(result, 0xff, bytes);

  const auto dtype = emsr::DType::kFloat16;  // or bfloat16: what runs is a matter of its type here
  const emsr::BlockImages images = {{storage + 2 * v[6], b, c, h, w, v[3], 1, v[4], v[5], dtype},
                                    {result, b, c, h, w, h * w * c, 1, w * c, c, dtype}};
  const auto run = std::string(argv[1]) == "float16" ? &run_blocks<Half> : &run_blocks<BFloat16>;
  run(images, first, second, std::atoi(argv[3]), std::string(argv[2]) == "reverse");
  std::ofstream file(argv[7], std::ios::binary);
  file.write(reinterpret_cast<const char*>(result), static_cast<std::streamsize>(bytes));
  std::free(result);
  std::free(storage);
  std::free(second);
  std::free(first);
  return file ? 0 : 1;
}
