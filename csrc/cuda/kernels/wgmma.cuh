/* Hopper's asynchronous products of a warp group (4 warps, 64 rows): D[64, N] += A[64, 16] B[16, N], and what keeps them in order.
 *
 * D lies in registers: the thread `lane` of warp w holds, of rows 16w + lane / 4 and that + 8, columns 8j + lane % 4 * 2 + {0, 1}
 * as numbers 4j + {0, 1} and 4j + {2, 3}. Bodies exist only where the compiler targets sm_90a. */
#pragma once

#include <type_traits>

#include "../common.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PS_HAS_WGMMA 1
#endif

namespace ps {
namespace wgmma {

#if defined(PS_HAS_WGMMA)

/* Where an operand of 128-byte rows in 128-byte swizzle lies. Units of 8 rows follow each other `kUnitBytes` apart; `block_bytes`
 * separates blocks of 64 columns where the columns are those of D (a "transposed" operand), otherwise it is not looked at. */
constexpr int kUnitBytes = 1024;

__device__ __forceinline__ uint64_t operand(uint32_t shared_address, int block_bytes) {
  return static_cast<uint64_t>((shared_address & 0x3ffff) >> 4) | static_cast<uint64_t>(block_bytes >> 4) << 16 |
         static_cast<uint64_t>(kUnitBytes >> 4) << 32 | 1ull << 62;
}

/* Before the first product of a batch: registers written by ordinary instructions may then be read. */
__device__ __forceinline__ void begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/* Until at most kPending batches are under way. */
template <int kPending>
__device__ __forceinline__ void wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/* Keeps the compiler from moving uses of an accumulator over this point. */
template <int kCount>
__device__ __forceinline__ void pin(float (&numbers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i++) asm volatile("" : "+f"(numbers[i])::"memory");
}

/* Operand lists of the instructions: so many accumulators. */
#define PS_ACC4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define PS_ACC8(i) PS_ACC4(i), PS_ACC4(i + 4)
#define PS_ACC12(i) PS_ACC8(i), PS_ACC4(i + 8)
#define PS_ACC16(i) PS_ACC8(i), PS_ACC8(i + 8)
#define PS_ACC24(i) PS_ACC16(i), PS_ACC8(i + 16)
#define PS_ACC32(i) PS_ACC8(i), PS_ACC8(i + 8), PS_ACC8(i + 16), PS_ACC8(i + 24)
#define PS_ACC64(i) PS_ACC32(i), PS_ACC32(i + 32)
#define PS_ACC128(i) PS_ACC64(i), PS_ACC64(i + 64)

#define PS_REGS8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define PS_REGS12 PS_REGS8 ", %8, %9, %10, %11"
#define PS_REGS16 PS_REGS12 ", %12, %13, %14, %15"
#define PS_REGS24 PS_REGS16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define PS_REGS32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"

#define PS_REGS64 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

#define PS_REGS128 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

/* columns: of D; a, b and accumulate are the operands behind the `count` accumulators. */
#define PS_PRODUCT_SHARED(type, columns, count, a_at, b_at, accumulate_at) \
  asm volatile("{.reg .pred p; setp.ne.b32 p, %" #accumulate_at \
               ", 0;" \
               "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type " {" PS_REGS##count "}, %" #a_at ", %" #b_at \
                                                                                                         ", p, 1, 1, 0, 0;}" \
               : PS_ACC##count(0) \
               : "l"(a), "l"(b), "r"(accumulate))

/* The one for N columns. */
#define PS_PRODUCTS_SHARED(type) \
  { \
    if constexpr (N == 16) PS_PRODUCT_SHARED(type, 16, 8, 8, 9, 10); \
    if constexpr (N == 24) PS_PRODUCT_SHARED(type, 24, 12, 12, 13, 14); \
    if constexpr (N == 32) PS_PRODUCT_SHARED(type, 32, 16, 16, 17, 18); \
    if constexpr (N == 48) PS_PRODUCT_SHARED(type, 48, 24, 24, 25, 26); \
    if constexpr (N == 64) PS_PRODUCT_SHARED(type, 64, 32, 32, 33, 34); \
    if constexpr (N == 128) PS_PRODUCT_SHARED(type, 128, 64, 64, 65, 66); \
  }

#define PS_PRODUCT_REGISTERS_64(type) \
  asm volatile( \
      "{.reg .pred p; setp.ne.b32 p, 1, 0;" \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" PS_REGS32 \
      "}, " \
      "{%32, %33, %34, %35}, %36, p, 1, 1, 1;}" \
      : PS_ACC32(0) \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

#define PS_PRODUCT_REGISTERS_128(type) \
  asm volatile( \
      "{.reg .pred p; setp.ne.b32 p, 1, 0;" \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" PS_REGS64 \
      "}, " \
      "{%64, %65, %66, %67}, %68, p, 1, 1, 1;}" \
      : PS_ACC64(0) \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

#define PS_PRODUCT_REGISTERS_256(type) \
  asm volatile( \
      "{.reg .pred p; setp.ne.b32 p, 1, 0;" \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type " {" PS_REGS128 \
      "}, " \
      "{%128, %129, %130, %131}, %132, p, 1, 1, 1;}" \
      : PS_ACC128(0) \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

/* D = A B^T, or added to D where `accumulate` is 1: both operands have the 16 summed numbers along their rows. */
template <typename T, int N>
__device__ __forceinline__ void product_shared(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate) {
  static_assert(N == 16 || N == 24 || N == 32 || N == 48 || N == 64 || N == 128, "Only these widths are spelled out.");
  constexpr bool kBf16 = std::is_same<T, bf16>::value;
  if constexpr (kBf16) PS_PRODUCTS_SHARED("bf16")
  else PS_PRODUCTS_SHARED("f16")
}

/* D += A B: A in registers, B with the columns of D along its rows. */
template <typename T, int N>
__device__ __forceinline__ void product_registers(float (&d)[N / 2], const uint32_t *a, uint64_t b) {
  static_assert(N == 64 || N == 128 || N == 256, "Only these widths are spelled out.");
  constexpr bool kBf16 = std::is_same<T, bf16>::value;
  if constexpr (N == 64 && kBf16) PS_PRODUCT_REGISTERS_64("bf16");
  if constexpr (N == 64 && !kBf16) PS_PRODUCT_REGISTERS_64("f16");
  if constexpr (N == 128 && kBf16) PS_PRODUCT_REGISTERS_128("bf16");
  if constexpr (N == 128 && !kBf16) PS_PRODUCT_REGISTERS_128("f16");
  if constexpr (N == 256 && kBf16) PS_PRODUCT_REGISTERS_256("bf16");
  if constexpr (N == 256 && !kBf16) PS_PRODUCT_REGISTERS_256("f16");
}

#undef PS_ACC4
#undef PS_ACC8
#undef PS_ACC12
#undef PS_ACC16
#undef PS_ACC24
#undef PS_ACC32
#undef PS_ACC64
#undef PS_ACC128
#undef PS_REGS8
#undef PS_REGS12
#undef PS_REGS16
#undef PS_REGS24
#undef PS_REGS32
#undef PS_REGS64
#undef PS_REGS128
#undef PS_PRODUCT_SHARED
#undef PS_PRODUCTS_SHARED
#undef PS_PRODUCT_REGISTERS_64
#undef PS_PRODUCT_REGISTERS_128
#undef PS_PRODUCT_REGISTERS_256

/* Registers a thread of the calling warp group: what one group gives back another may take. */
template <int kRegisters>
__device__ __forceinline__ void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

/* Makes this thread's stores to shared memory visible to products and bulk copies that other threads start after a barrier. */
__device__ __forceinline__ void publish_stores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* Barriers by number (0 is __syncthreads): `threads` counts those that wait and those that only arrive. */
__device__ __forceinline__ void named_wait(int barrier, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory"); }
__device__ __forceinline__ void named_arrive(int barrier, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory"); }

/* Barriers in shared memory: a phase ends after `arrivals` arrivals and all announced bytes; phases alternate parity 0, 1. */
__device__ __forceinline__ void barrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_publish() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void barrier_arrive_expecting(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
#define PS_BARRIER_WAIT(scope) \
  uint32_t done; \
  do { \
    asm volatile("{.reg .pred p; mbarrier.try_wait.parity" scope ".shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}" \
                 : "=r"(done) \
                 : "r"(barrier), "r"(parity) \
                 : "memory"); \
  } while (done == 0)

__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) { PS_BARRIER_WAIT(""); }
/* The same where arrivals may come from the whole cluster. */
__device__ __forceinline__ void barrier_wait_cluster(uint32_t barrier, uint32_t parity) { PS_BARRIER_WAIT(".acquire.cluster"); }

#undef PS_BARRIER_WAIT

/* Copies bytes (a multiple of 16) from global to shared memory and reports them to the barrier. */
__device__ __forceinline__ void bulk_copy(uint32_t shared, const void *global, int bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared), "l"(global), "r"(bytes),
               "r"(barrier)
               : "memory");
}

#endif

}  // namespace wgmma
}  // namespace ps
