/* The kernels of prefill attention by name, so that a benchmark can run each of them. Host code. */
#pragma once

#include "../backend.h"

namespace ps {
namespace prefill {

enum class Kernel { kGeneric, kMma, kWgmma };

/* The fastest kernel that the device has for a cache. */
Kernel choose(const Backend &backend, const ps_cache_desc &desc);

/* kMma and kWgmma: 16-bit pages and a head size that the kernel has. */
void run(Backend &backend, const PrefillAttentionParams &params, Kernel kernel);

}  // namespace prefill

/* Scratch of a cache with keys and values in 8 bits, at its beginning: one layer of the longest sequence as its dtype. */
int64_t prefill_scratch_bytes(const ps_cache_desc &desc);

}  // namespace ps
