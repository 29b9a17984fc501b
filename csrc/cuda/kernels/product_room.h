/* How much of a multiprocessor's shared memory a block of a product of one token takes: with the right amounts, each multiprocessor has room for one
 * block of a product and one of the next, which then requests its weights early. */
#pragma once

#include <algorithm>

#include "../backend.h"

namespace ps {

/* The most shared memory that two blocks on one multiprocessor can have each. */
inline int64_t shared_half(const Backend &backend) {
  constexpr int64_t kReserved = 1024; /* by the system, for every block */
  return (backend.shared_bytes - kReserved) / 2;
}

/* How far a block is off half of a multiprocessor's shared memory: less of a product with a norm, more of one without. They take turns in a layer.
 * One of either kind fits beside one of the other, but two without a norm do not. A product starts when all blocks of the one before have, so
 * each multiprocessor then has room for one of its blocks: with room for two, some would get two and others none. */
constexpr int64_t kLess = 4 * 1024, kMore = 3 * 1024;

/* Shared memory that a block may take: half, so that blocks of other kernels fit beside it, where that holds a ring and some of x. */
inline int64_t shared_budget(const Backend &backend, bool has_norm) {
  const int64_t half = shared_half(backend);
  if (half < 80 * 1024) return backend.shared_bytes;
  return backend.capability >= 90 && has_norm ? half - kLess : half;
}

inline int64_t shared_bytes_of(const Backend &backend, int64_t needed, bool has_norm) {
  if (backend.capability < 90) return needed;
  return std::max(needed, shared_half(backend) + (has_norm ? -kLess : kMore));
}

}  // namespace ps
