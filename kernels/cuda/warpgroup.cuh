// 128 threads of a GPU with Hopper's tensor cores, and their instructions. compute_90a only.
#pragma once
#include <type_traits>

#include "conv_planes.cuh"
#include "halves.cuh"

namespace emsr {

// The registers of a wgmma's sums in its text, sixteen at a time, and as operands of asm.
#define EMSR_NAMES_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
#define EMSR_NAMES_16 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
#define EMSR_NAMES_32 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
#define EMSR_NAMES_48 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define EMSR_NAMES_64 "%64, %65, %66, %67"
#define EMSR_FOUR(i) "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3])
#define EMSR_SIXTEEN(i) EMSR_FOUR(i), EMSR_FOUR(i + 4), EMSR_FOUR(i + 8), EMSR_FOUR(i + 12)
// sums += a * b: a from registers, b by its descriptor, K-major
#define EMSR_WGMMA_128(type)                                                                              \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" EMSR_NAMES_0 EMSR_NAMES_16 \
               EMSR_NAMES_32 EMSR_NAMES_48 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 0;"                      \
               : EMSR_SIXTEEN(0), EMSR_SIXTEEN(16), EMSR_SIXTEEN(32), EMSR_SIXTEEN(48)                      \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

#define EMSR_WGMMA_136(type)                                                                              \
  asm volatile("wgmma.mma_async.sync.aligned.m64n136k16.f32." type "." type " {" EMSR_NAMES_0 EMSR_NAMES_16 \
               EMSR_NAMES_32 EMSR_NAMES_48 ", " EMSR_NAMES_64 "}, {%68, %69, %70, %71}, %72, 1, 1, 1, 0;"   \
               : EMSR_SIXTEEN(0), EMSR_SIXTEEN(16), EMSR_SIXTEEN(32), EMSR_SIXTEEN(48), EMSR_FOUR(64)       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

template <typename T>
struct DeviceGroup {
  using Two = typename Pair<T>::Type;
  uint32_t number;          // of the group in its block
  uint32_t thread, shared;  // place in the group; address of the block's shared memory

  // 16 bytes to shared memory, on their way until wait_copies(); zeros if they do not exist
  __device__ void copy16(uint32_t to, const void* from, bool exists) const {
    const uint32_t bytes = exists ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
  }
  __device__ void wait_copies() const { asm volatile("cp.async.wait_all;" ::: "memory"); }
  // this thread's writes to shared memory, for the tensor cores, which read it by another way
  __device__ void publish() const { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
  // Barriers 1 and 2 belong to the groups, 3 and 4 hand a turn from one of two groups to the other.
  __device__ void sync() const { asm volatile("bar.sync %0, 128;" ::"r"(1 + number) : "memory"); }
  __device__ void sync_block() const { __syncthreads(); }
  __device__ void wait_turn() const { asm volatile("bar.sync %0, 256;" ::"r"(3 + number) : "memory"); }
  __device__ void give_turn() const { asm volatile("bar.arrive %0, 256;" ::"r"(4 - number) : "memory"); }

  template <int kSums>
  __device__ void begin_products(float (&sums)[kSums]) const {
    hold(sums);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  }
  __device__ void product(float (&sums)[64], const uint32_t (&a)[4], uint64_t b) const {
    if constexpr (std::is_same_v<T, __half>) {
      EMSR_WGMMA_128("f16");
    } else {
      EMSR_WGMMA_128("bf16");
    }
  }
  __device__ void product(float (&sums)[68], const uint32_t (&a)[4], uint64_t b) const {
    if constexpr (std::is_same_v<T, __half>) {
      EMSR_WGMMA_136("f16");
    } else {
      EMSR_WGMMA_136("bf16");
    }
  }
  __device__ void end_products() const { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
  template <int kSums>
  __device__ void wait_products(float (&sums)[kSums]) const {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    hold(sums);
  }

  __device__ void load_transposed(uint32_t from, uint32_t* words) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(from)
                 : "memory");
  }
  __device__ void store_transposed(uint32_t to, const uint32_t* words) const {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words[0]),
                 "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
  }
  __device__ Chunk load16(uint32_t from) const {
    Chunk chunk;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(chunk.word[0]), "=r"(chunk.word[1]), "=r"(chunk.word[2]), "=r"(chunk.word[3])
                 : "r"(from)
                 : "memory");
    return chunk;
  }
  __device__ void write16(void* to, const Chunk& chunk) const {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(chunk.word[0]), "r"(chunk.word[1]),
                 "r"(chunk.word[2]), "r"(chunk.word[3])
                 : "memory");
  }

  __device__ uint32_t pack(float low, float high) const {
    const Two two = Pair<T>::from(low, high);
    return *reinterpret_cast<const uint32_t*>(&two);
  }
  __device__ void unpack(uint32_t word, float& low, float& high) const {
    const float2 both = Pair<T>::to_floats(*reinterpret_cast<const Two*>(&word));
    low = both.x;
    high = both.y;
  }

 private:
  // keeps what computes with the sums on its side of the asynchronous products
  template <int kSums>
  __device__ static void hold(float (&sums)[kSums]) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) asm volatile("" : "+f"(sums[i])::"memory");
  }
};

}  // namespace emsr
