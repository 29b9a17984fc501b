/* Shared by several kernels. */
#pragma once

#include "../../params.h"
#include "../layout.h"
#include "../simd.h"
#include "../thread_pool.h"

namespace ps {
namespace PS_ISA {

/* Calls body with a value of the C++ type that stores the dtype. */
template <typename Body>
static void with_dtype(int32_t dtype, const Body &body) {
  if (dtype == PS_F32) body(float{});
  else if (dtype == PS_F16) body(f16{});
  else body(bf16{});
}

/* Calls body with a value of the C++ type that stores keys and values. */
template <typename Body>
static void with_kv_type(const ps_cache_desc &desc, const Body &body) {
  if (desc.kv_type == PS_KV_Q8) body(q8{});
  else if (desc.kv_type == PS_KV_FP8) body(fp8{});
  else with_dtype(desc.dtype, body);
}

/* Whether a type of keys and values is to be multiplied by the scale of its row. */
template <typename T>
constexpr bool kIsScaled = sizeof(T) == 1;

/* Computed as an integer, because a pointer must not point outside an array, and at its end the address does. */
PS_INLINE void prefetch_ahead(const void *p, int64_t bytes) {
  __builtin_prefetch(reinterpret_cast<const void *>(reinterpret_cast<uintptr_t>(p) + static_cast<uintptr_t>(bytes)));
}

/* A number of the bias of a product, which may lack one. */
static inline float bias_at(const Typed &bias, int64_t index) {
  if (bias.data == nullptr) return 0;
  if (bias.dtype == PS_F32) return static_cast<const float *>(bias.data)[index];
  if (bias.dtype == PS_F16) return to_float(static_cast<const f16 *>(bias.data)[index]);
  return to_float(static_cast<const bf16 *>(bias.data)[index]);
}

/* Runs body(first, end) over [0, count) in ranges of about `grain`; a small count is one range on the calling thread. */
template <typename Body>
static void parallel_ranges(ThreadPool &pool, int64_t count, int64_t grain, const Body &body) {
  const int64_t tasks = (count + grain - 1) / grain;
  if (tasks <= 1) {
    body(0, count);
    return;
  }
  pool.parallel_for(tasks, [&](int64_t task, int) {
    const int64_t first = task * grain, end = first + grain < count ? first + grain : count;
    body(first, end);
  });
}

/* Rows with about this many numbers: enough work to be worth waking a thread. */
constexpr int64_t kGrainNumbers = 16384;
static inline int64_t rows_per_task(int64_t width) { return width >= kGrainNumbers ? 1 : kGrainNumbers / width; }

}  // namespace PS_ISA
}  // namespace ps
