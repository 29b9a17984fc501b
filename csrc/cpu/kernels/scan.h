/* The exclusive or of a buffer's words: does nothing but read. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

constexpr int64_t kScanWords = 1 << 18; /* a task's share: 1 MiB */

static uint32_t scan_range(const uint32_t *words, int64_t count) {
  VecBits sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    for (int v = 0; v < 4; v++) {
      VecBits loaded;
      __builtin_memcpy(&loaded, words + i + v * kLanes, sizeof loaded);
      sum[v] ^= loaded;
    }
  }
  const VecBits joined = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
  uint32_t total = 0;
  for (int lane = 0; lane < kLanes; lane++) total ^= joined[lane];
  for (; i < count; i++) total ^= words[i];
  return total;
}

static void scan(ThreadPool &pool, const ScanParams &p) {
  const int64_t tasks = (p.count + kScanWords - 1) / kScanWords;
  pool.reserve_scratch(int64_t(sizeof(uint32_t)));
  for (int thread = 0; thread < pool.size(); thread++) *static_cast<uint32_t *>(pool.scratch(thread)) = 0;
  pool.parallel_for(tasks, [&](int64_t task, int thread) {
    const int64_t first = task * kScanWords, count = p.count - first < kScanWords ? p.count - first : kScanWords;
    *static_cast<uint32_t *>(pool.scratch(thread)) ^= scan_range(p.words + first, count);
  });
  *p.out = 0;
  for (int thread = 0; thread < pool.size(); thread++) *p.out ^= *static_cast<uint32_t *>(pool.scratch(thread));
}

}  // namespace PS_ISA
}  // namespace ps
