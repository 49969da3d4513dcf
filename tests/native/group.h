// DeviceGroup of kernels/cuda/warpgroup.cuh on the CPU: the instructions of 128 threads by the text of the PTX ISA
// ("Register Fragments and Shared Memory Matrix Layouts" of wgmma.mma_async, "Matrix Descriptor Format", ldmatrix, stmatrix).
// An error in a descriptor, a tap's shift, a mask, a ring's slot or a lane's place gives wrong numbers, or ends the program.
#pragma once
#include <limits>
#include <utility>

#include "block.h"
#include "conv_planes.cuh"
#include "halves.h"

// What the threads of a group bring to its instructions; sums that are being computed.
struct GroupState {
  std::string name;
  int first;  // thread of the block
  struct Parcel {
    const uint32_t* a;
    uint64_t b;
    float* sums;
    uint32_t address, words[4];
  } parcels[emsr::kGroupThreads];
  std::vector<float> sums;  // 64 rows
  bool started = false, committed = false;
  std::vector<uint32_t> held;  // granules that products read
};

template <typename T>
class HostGroup {
 public:
  uint32_t thread, shared;

  HostGroup(Block& block, GroupState& state, uint32_t thread_, uint32_t shared_)
      : thread(thread_), shared(shared_), block_(block), state_(state) {}

  void copy16(uint32_t to, const void* from, bool exists) const {
    Copy copy = {to, {}};
    if (exists) {
      if (reinterpret_cast<uintptr_t>(from) % 16 != 0) stop("copy from no multiple of 16");
      std::memcpy(copy.bytes, from, 16);
    }
    // until it is waited for, nobody finds anything there
    std::memset(block_.write(to, id(), true), 0xff, 16);
    copies_.push_back(copy);
  }
  void wait_copies() const {
    for (const Copy& copy : copies_) std::memcpy(block_.write(copy.to, id()), copy.bytes, 16);
    copies_.clear();
  }
  void publish() const { block_.publish(id()); }
  void sync() const { block_.barrier(state_.name + "sync", emsr::kGroupThreads); }
  void sync_block() const { block_.barrier("sync_block", 2 * emsr::kGroupThreads); }
  void wait_turn() const { block_.barrier(state_.first == 0 ? "turn 0" : "turn 1", 2 * emsr::kGroupThreads); }
  void give_turn() const { block_.arrive(state_.first == 0 ? "turn 1" : "turn 0", 2 * emsr::kGroupThreads); }

  template <int kSums>
  void begin_products(float (&sums)[kSums]) const {
    together("begin_products", sums, [this] {
      if (state_.started) stop("products begin twice");
      state_.started = true;
      state_.sums.assign(64 * 2 * kSums, 0);
      each_sum<kSums>([&](float& own, float& all) {
        all = own;
        // nobody knows them until they are waited for
        own = std::numeric_limits<float>::quiet_NaN();
      });
    });
  }

  // sums (64 x N) += a (64 x 16) * b (16 x N)
  template <int kSums>
  void product(float (&sums)[kSums], const uint32_t (&a)[4], uint64_t b) const {
    own().a = a;
    own().b = b;
    together("product", sums, [this] { multiply<2 * kSums>(); });
  }
  void end_products() const {
    meet("end_products", [this] { state_.committed = true; });
  }
  template <int kSums>
  void wait_products(float (&sums)[kSums]) const {
    together("wait_products", sums, [this] {
      if (!state_.committed) stop("waiting for products that were not committed");
      each_sum<kSums>([](float& own, float& all) { own = all; });
      for (uint32_t address : state_.held) {
        block_.hold(address, -1);
        // read until now, not when the product was started
        for (int w = 0; w < 4; ++w) block_.tensor_read(address, state_.first + 32 * w);
      }
      state_.held.clear();
      state_.started = state_.committed = false;
    });
  }

  // Matrix i, 8 rows of 8 values, has the addresses of lanes 8 i to 8 i + 7. Transposed, lane 4 g + t holds value g of
  // rows 2 t and 2 t + 1.
  void load_transposed(uint32_t from, uint32_t* words) const {
    own().address = from;
    warp("load_transposed", [this](GroupState::Parcel* lanes, int first) {
      for (int i = 0; i < 4; ++i) {
        for (int row = 0; row < 8; ++row) {
          const unsigned char* bytes = block_.read(lanes[8 * i + row].address, first);
          for (int g = 0; g < 8; ++g) {
            std::memcpy(reinterpret_cast<char*>(&lanes[4 * g + row / 2].words[i]) + row % 2 * 2, bytes + 2 * g, 2);
          }
        }
      }
    });
    std::memcpy(words, own().words, sizeof own().words);
  }
  void store_transposed(uint32_t to, const uint32_t* words) const {
    own().address = to;
    std::memcpy(own().words, words, sizeof own().words);
    warp("store_transposed", [this](GroupState::Parcel* lanes, int first) {
      for (int i = 0; i < 4; ++i) {
        for (int row = 0; row < 8; ++row) {
          unsigned char* bytes = block_.write(lanes[8 * i + row].address, first);
          for (int g = 0; g < 8; ++g) {
            std::memcpy(bytes + 2 * g, reinterpret_cast<char*>(&lanes[4 * g + row / 2].words[i]) + row % 2 * 2, 2);
          }
        }
      }
    });
  }
  emsr::Chunk load16(uint32_t from) const {
    emsr::Chunk chunk;
    std::memcpy(&chunk, block_.read(from, id()), 16);
    return chunk;
  }
  void write16(void* to, const emsr::Chunk& chunk) const {
    if (reinterpret_cast<uintptr_t>(to) % 16 != 0) stop("write to no multiple of 16");
    std::memcpy(to, &chunk, 16);
  }

  uint32_t pack(float low, float high) const { return bits_of(T(low)) | uint32_t{bits_of(T(high))} << 16; }
  void unpack(uint32_t word, float& low, float& high) const {
    low = number_of<T>(word & 0xffff);
    high = number_of<T>(word >> 16);
  }

 private:
  struct Copy {
    uint32_t to;
    unsigned char bytes[16];
  };

  int id() const { return state_.first + static_cast<int>(thread); }
  GroupState::Parcel& own() const { return state_.parcels[thread]; }

  void meet(const char* instruction, const std::function<void()>& action) const {
    block_.meet(state_.name + instruction, emsr::kGroupThreads, action);
  }
  template <int kSums>
  void together(const char* instruction, float (&sums)[kSums], const std::function<void()>& action) const {
    own().sums = sums;
    meet(instruction, action);
  }
  void warp(const char* instruction, const std::function<void(GroupState::Parcel*, int)>& action) const {
    const int number = static_cast<int>(thread) / 32;
    block_.meet(state_.name + instruction + std::to_string(number), 32,
                [&] { action(state_.parcels + 32 * number, state_.first + 32 * number); });
  }

  // Sum i of lane 4 g + t of warp w: row 16 w + g, + 8 for i % 4 >= 2; column i / 4 * 8 + 2 t + i % 2.
  template <int kSums, class Visit>
  void each_sum(Visit visit) const {
    for (int thread_ = 0; thread_ < 128; ++thread_) {
      const int warp_ = thread_ / 32, g = thread_ % 32 / 4, t = thread_ % 4;
      for (int i = 0; i < kSums; ++i) {
        const int row = 16 * warp_ + g + (i % 4 >= 2 ? 8 : 0), col = i / 4 * 8 + 2 * t + i % 2;
        visit(state_.parcels[thread_].sums[i], state_.sums[row * 2 * kSums + col]);
      }
    }
  }

  template <int kColumns>
  void multiply() const {
    if (!state_.started || state_.committed) stop("product outside begin and end");
    // value e of lane 4 g + t of warp w: row 16 w + g, + 8 for e in 2, 3, 6, 7; column 2 t + e % 2, + 8 for e >= 4
    float a[64][16];
    for (int thread_ = 0; thread_ < 128; ++thread_) {
      if (state_.parcels[thread_].b != state_.parcels[0].b) stop("descriptors differ");
      for (int e = 0; e < 8; ++e) {
        const int row = thread_ / 32 * 16 + thread_ % 32 / 4 + (e / 2 % 2 == 1 ? 8 : 0);
        a[row][thread_ % 4 * 2 + e % 2 + (e >= 4 ? 8 : 0)] =
            number_of<T>(state_.parcels[thread_].a[e / 2] >> (e % 2 * 16) & 0xffff);
      }
    }
    // bits 0 to 13: start; 16 to 29: leading offset; 32 to 45: stride offset; 49 to 51: base offset; 62, 63: swizzle
    const uint64_t b = state_.parcels[0].b;
    if ((b & ~(uint64_t{0x3fff} | uint64_t{0x3fff} << 16 | uint64_t{0x3fff} << 32)) != 0) stop("descriptor with swizzle");
    const auto field = [&](int bit) { return static_cast<uint32_t>(b >> bit & 0x3fff) * 16; };
    float right[16][kColumns];
    for (int n = 0; n < kColumns; ++n) {
      for (int half = 0; half < 2; ++half) {
        // core matrices of 8 columns x 16 bytes, 128 bytes each
        const uint32_t address = field(0) + n / 8 * field(32) + n % 8 * 16 + half * field(16);
        const unsigned char* bytes = nullptr;
        for (int w = 0; w < 4; ++w) bytes = block_.tensor_read(address, state_.first + 32 * w);
        block_.hold(address, 1);
        state_.held.push_back(address);
        for (int k = 0; k < 8; ++k) {
          uint16_t value;
          std::memcpy(&value, bytes + 2 * k, 2);
          right[8 * half + k][n] = number_of<T>(value);
        }
      }
    }
    for (int row = 0; row < 64; ++row) {
      float* sums = &state_.sums[row * kColumns];
      for (int k = 0; k < 16; ++k) {
        const float left = a[row][k];
        for (int n = 0; n < kColumns; ++n) sums[n] += left * right[k][n];
      }
    }
  }

  Block& block_;
  GroupState& state_;
  mutable std::vector<Copy> copies_;
};
