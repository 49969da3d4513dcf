// Runs the warps of kernels/cuda/window_attention_{mma,fma}.cuh on the CPU. Each of a warp's 32 lanes is a coroutine that
// runs until the lanes must meet, at an mma or a shuffle; there the program gathers what they bring, computes with the
// fragment positions that the PTX ISA documents ("Matrix Fragments for mma.m16n8k16" and "... m16n8k8"), and hands each
// lane its part. Lanes that meet at different instructions end the program. Shared memory starts as NaN.
//
// usage: window_attention_on_host float32|float16|bfloat16 forward|reverse BLOCKS WARPS HEADS HIDDEN WEIGHTS IN OUT
//        B C H W SB SC SH SW OFFSET
// WEIGHTS holds the 11 parameters one after the other, IN a whole storage, both of the type; sizes, strides and offset
// (elements) say which image it is. OUT is written contiguous, channels last, NaN where nothing is written.
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "files.h"
#include "halves.h"
#include "window_attention_fma.cuh"
#include "window_attention_mma.cuh"

namespace {

using emsr::ImageView;
using emsr::WindowAttentionWeights;

constexpr int kLanes = 32;

// The lanes of one warp, and the place where they meet.
class Lanes {
 public:
  // Runs body(lane) for all lanes, from the first to the last or the other way round.
  void run(const std::function<void(uint32_t)>& body, bool reverse) {
    static std::vector<std::vector<char>> stacks(kLanes, std::vector<char>(1 << 18));
    body_ = &body;
    for (int i = 0; i < kLanes; ++i) {
      getcontext(&lanes_[i]);
      lanes_[i].uc_stack.ss_sp = stacks[i].data();
      lanes_[i].uc_stack.ss_size = stacks[i].size();
      lanes_[i].uc_link = &main_;
      done_[i] = false;
      makecontext(&lanes_[i], reinterpret_cast<void (*)()>(&Lanes::enter), 0);
    }
    self = this;
    while (!done_[0]) {
      for (int i = 0; i < kLanes; ++i) {
        current_ = reverse ? kLanes - 1 - i : i;
        swapcontext(&main_, &lanes_[current_]);
      }
      for (int i = 1; i < kLanes; ++i) {
        if (done_[i] != done_[0] || (!done_[0] && met_[i] != met_[0])) stop("lanes have parted");
      }
      if (!done_[0]) (*action_)();
    }
  }

  // Waits until all lanes are at the instruction `name`; the last one's `action` then serves all of them.
  void meet(const char* name, const std::function<void()>& action) {
    met_[current_] = name;
    action_ = &action;
    const int lane = current_;
    swapcontext(&lanes_[lane], &main_);
  }

  [[noreturn]] static void stop(const char* why) {
    std::fprintf(stderr, "%s\n", why);
    std::exit(3);
  }

 private:
  static void enter() {
    const int lane = self->current_;
    (*self->body_)(static_cast<uint32_t>(lane));
    self->done_[lane] = true;
  }

  static Lanes* self;
  ucontext_t main_, lanes_[kLanes];
  bool done_[kLanes];
  const char* met_[kLanes];
  const std::function<void()>* action_;
  const std::function<void(uint32_t)>* body_;
  int current_ = 0;
};
Lanes* Lanes::self = nullptr;

// What a lane brings to a meeting, and takes from it.
struct Parcel {
  uint32_t a[4], b[2], from;
  float sums[4], value;
};

struct Meeting {
  Lanes lanes;
  Parcel parcels[kLanes];
};

// DeviceWarp of window_attention.cu, on the CPU.
template <typename T>
class HostWarp {
 public:
  static constexpr float kInfinity = std::numeric_limits<float>::infinity();
  static constexpr uint32_t kOnes = std::is_same_v<T, BFloat16> ? 0x3f803f80 : 0x3c003c00;
  uint32_t lane;

  HostWarp(Meeting& meeting, uint32_t lane_) : lane(lane_), meeting_(meeting) {}

  void fence() const {}
  uint32_t forget(uint32_t value) const { return value; }
  float larger(float a, float b) const { return std::fmax(a, b); }
  float exp(float x) const { return std::exp(x); }
  float exp2(float x) const { return std::exp2(x); }
  float reciprocal(float x) const { return 1 / x; }
  float reciprocal_root(float x) const { return 1 / std::sqrt(x); }

  float shuffle_xor(float value, uint32_t mask) const { return shuffle(value, lane ^ mask); }
  float shuffle(float value, uint32_t from) const {
    own().value = value;
    own().from = from;
    meeting_.lanes.meet("shuffle", [this] {
      float values[kLanes];
      for (int i = 0; i < kLanes; ++i) values[i] = meeting_.parcels[meeting_.parcels[i].from].value;
      for (int i = 0; i < kLanes; ++i) meeting_.parcels[i].value = values[i];
    });
    return own().value;
  }

  uint32_t pack(float low, float high) const { return bits_of(T(low)) | uint32_t{bits_of(T(high))} << 16; }
  void unpack(uint32_t word, float& low, float& high) const {
    low = number_of<T>(word & 0xffff);
    high = number_of<T>(word >> 16);
  }
  uint32_t relu(uint32_t word) const {
    float low, high;
    unpack(word, low, high);
    return pack(low < 0 ? 0 : low, high < 0 ? 0 : high);
  }

  void mma16(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) const {
    const uint32_t b[2] = {b0, b1};
    mma<16>("mma16", sums, a, b);
  }
  void mma8(float (&sums)[4], const uint32_t (&a)[2], uint32_t b) const { mma<8>("mma8", sums, a, &b); }

 private:
  Parcel& own() const { return meeting_.parcels[lane]; }
  // D = A (16 x kDepth) * B (kDepth x 8) + C, with the positions of the PTX ISA, for element i of a lane:
  // A: row = group for i < 2 or 4 <= i < 6, else group + 8; column = 2 * in_group + (i & 1), + 8 for i >= 4
  // B: row = 2 * in_group + (i & 1), + 8 for i >= 2; column = group
  // C, D: row = group for i < 2, else group + 8; column = 2 * in_group + (i & 1)
  template <int kDepth>
  void mma(const char* name, float (&sums)[4], const uint32_t* a, const uint32_t* b) const {
    std::memcpy(own().a, a, kDepth / 4 * sizeof(uint32_t));
    std::memcpy(own().b, b, kDepth / 8 * sizeof(uint32_t));
    std::memcpy(own().sums, sums, sizeof sums);
    meeting_.lanes.meet(name, [this] {
      float left[16][kDepth], right[kDepth][8];
      for (int i = 0; i < kLanes; ++i) {
        const int group = i / 4, in_group = i % 4;
        const Parcel& p = meeting_.parcels[i];
        for (int e = 0; e < kDepth / 2; ++e) {
          const int row = e < 2 || (e >= 4 && e < 6) ? group : group + 8;
          left[row][2 * in_group + (e & 1) + (e >= 4 ? 8 : 0)] = number_of<T>(p.a[e / 2] >> (e % 2 * 16) & 0xffff);
        }
        for (int e = 0; e < kDepth / 4; ++e) {
          right[2 * in_group + (e & 1) + (e >= 2 ? 8 : 0)][group] = number_of<T>(p.b[e / 2] >> (e % 2 * 16) & 0xffff);
        }
      }
      for (int i = 0; i < kLanes; ++i) {
        for (int e = 0; e < 4; ++e) {
          const int row = i / 4 + (e < 2 ? 0 : 8), col = 2 * (i % 4) + (e & 1);
          float& sum = meeting_.parcels[i].sums[e];
          for (int k = 0; k < kDepth; ++k) sum += left[row][k] * right[k][col];
        }
      }
    });
    std::memcpy(sums, own().sums, sizeof sums);
  }

  Meeting& meeting_;
};

struct Run {
  ImageView x, out;
  WindowAttentionWeights weights;
  int blocks, warps;
  bool reverse;
};

// As the kernels do: a block stages its weights with all its threads, then each warp takes its steps.
template <typename T, int kChannels>
void run_blocks(const Run& r) {
  const auto hidden = static_cast<uint32_t>(r.weights.hidden);
  const uint32_t bytes = emsr::BlockWeights<kChannels>::bytes(hidden);
  for (int block = 0; block < r.blocks; ++block) {
    // exactly the size used, aligned as the GPU's is, so that the address sanitizer sees a step outside
    auto* shared = static_cast<unsigned char*>(std::aligned_alloc(16, bytes));
    std::memset(shared, 0xff, bytes);  // NaN in every type
    const emsr::BlockWeights<kChannels> weights(shared, hidden);
    if constexpr (!std::is_same_v<T, float>) {
      const auto threads = static_cast<uint32_t>(32 * r.warps);
      for (uint32_t t = 0; t < threads; ++t) emsr::stage_weights<T>(r.weights, weights, t, threads);
    }
    for (int warp = 0; warp < r.warps; ++warp) {
      const int steps = static_cast<int>(emsr::step_count(r.x));
      emsr::for_steps_of_warp(warp, r.warps, block, r.blocks, steps, [&](uint32_t first) {
        static Meeting meeting;
        meeting.lanes.run(
            [&](uint32_t lane) {
              if constexpr (std::is_same_v<T, float>) {
                const HostWarp<Half> host(meeting, lane);
                emsr::TokenStep<HostWarp<Half>, kChannels>(host, r.weights).run(r.x, r.out, first);
              } else {
                const HostWarp<T> host(meeting, lane);
                emsr::WindowStep<HostWarp<T>, kChannels>(host, weights).run(r.x, r.out, first);
              }
            },
            r.reverse);
      });
    }
    std::free(shared);
  }
}

template <typename T>
void run_channels(const Run& r) {
  if (r.x.c == 16) return run_blocks<T, 16>(r);
  if (r.x.c == 32) return run_blocks<T, 32>(r);
  if (r.x.c == 64) return run_blocks<T, 64>(r);
  Lanes::stop("16, 32 or 64 channels");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 19) return 2;
  const std::string type = argv[1];
  const int64_t size = type == "float32" ? 4 : 2, heads = std::atoll(argv[5]), hidden = std::atoll(argv[6]);
  int64_t v[9];
  for (int i = 0; i < 9; ++i) v[i] = std::atoll(argv[10 + i]);
  const int64_t c = v[1], pixels = v[0] * v[2] * v[3];

  unsigned char* storage = read_file(argv[8]);
  unsigned char* parameters = read_file(argv[7]);
  const void* p[11];
  const int64_t lengths[11] = {c, c, 3 * c * c, c * c, c, c, c, hidden * c, hidden, c * hidden, c};
  int64_t at = 0;
  for (int i = 0; i < 11; at += lengths[i++]) p[i] = parameters + size * at;
  auto* result = static_cast<unsigned char*>(std::aligned_alloc(16, static_cast<size_t>(pixels * c * size + 16)));
  std::memset(result, 0xff, static_cast<size_t>(pixels * c * size));

  const Run run = {{storage + size * v[8], v[0], c, v[2], v[3], v[4], v[5], v[6], v[7], emsr::DType::kFloat32},
                   {result, v[0], c, v[2], v[3], v[2] * v[3] * c, 1, v[3] * c, c, emsr::DType::kFloat32},
                   {p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], heads, hidden},
                   std::atoi(argv[3]), std::atoi(argv[4]), std::string(argv[2]) == "reverse"};
  if (type == "float32") run_channels<float>(run);
  if (type == "float16") run_channels<Half>(run);
  if (type == "bfloat16") run_channels<BFloat16>(run);
  std::ofstream file(argv[9], std::ios::binary);
  file.write(reinterpret_cast<const char*>(result), static_cast<std::streamsize>(pixels * c * size));
  std::free(result);
  std::free(parameters);
  std::free(storage);
  return file ? 0 : 1;
}
