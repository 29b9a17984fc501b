/* Which token of a call closes a page, or a group of pages, and which has one to itself. */
#pragma once

#include "../common.cuh"

namespace ps {

/* Whether a later token of the call lies in the same unit of `unit_tokens` slots as token `token`. All threads of the block call. */
__device__ inline bool is_continued(const int32_t *slots, int64_t tokens, int64_t token, int32_t unit_tokens) {
  const int32_t unit = slots[token] / unit_tokens;
  auto same = [&](int64_t i) { return slots[i] >= 0 && slots[i] / unit_tokens == unit; };
  if (token + 1 < tokens && same(token + 1)) return true;
  bool found = false;
  for (int64_t i = token + 2 + threadIdx.x; i < tokens; i += blockDim.x) found |= same(i);
  return __syncthreads_or(found);
}

/* Whether no other token of the call lies in its unit of `unit_tokens` slots. All threads of the block call. */
__device__ inline bool is_alone(const int32_t *slots, int64_t tokens, int64_t token, int32_t unit_tokens) {
  if (tokens == 1) return true;
  const int32_t unit = slots[token] / unit_tokens;
  bool found = false;
  for (int64_t i = threadIdx.x; i < tokens; i += blockDim.x) found |= i != token && slots[i] >= 0 && slots[i] / unit_tokens == unit;
  return !__syncthreads_or(found);
}

}  // namespace ps
