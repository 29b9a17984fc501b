/* Decode attention with plain arithmetic: for pages of f32 and for head sizes that the tensor core kernel does not have. */
#pragma once

#include "decode_attention.cuh"

namespace ps {

constexpr int kBlockTokens = 32;

inline int64_t decode_generic_shared_bytes(int64_t head_dim) {
  return (2 * kRowHeads * head_dim + kRowHeads * kBlockTokens + 3 * kRowHeads) * int64_t(sizeof(float));
}

/* The tokens of a block: where their keys and values start, or -1 for one that does not count. */
struct TokenPlaces {
  int64_t base[kBlockTokens];  /* first element of the page */
  int64_t scale[kBlockTokens]; /* place of its scales, where there are any */
  int32_t place[kBlockTokens];
};

__device__ inline void find_tokens(const DecodeLaunch &launch, const RowPages &row, int first, TokenPlaces &out) {
  const int token = first + threadIdx.x, place = row.begin + (token >> row.page_shift), inside = token & ((1 << row.page_shift) - 1);
  if (threadIdx.x >= kBlockTokens) return;
  out.place[threadIdx.x] = -1;
  out.base[threadIdx.x] = 0;
  if (place >= row.end) return;
  const int logical = logical_page(launch, row, place), position = (logical << row.page_shift) + inside;
  if (position < row.first_token || position >= row.length) return;
  const Layout layout(launch.params.cache.desc);
  const int32_t physical = physical_page(launch, row, logical);
  out.base[threadIdx.x] = layout.tokens(launch.params.layer, row.head, physical);
  out.scale[threadIdx.x] = layout.token(launch.params.layer, row.head, physical) + inside;
  out.place[threadIdx.x] = inside;
}

/* Scores in base 2 of all heads and tokens of the block. */
template <typename T>
__device__ inline void score_tokens(const DecodeLaunch &launch, const RowPages &row, const TokenPlaces &tokens, const float *q, float *scores) {
  const CacheView &cache = launch.params.cache;
  const Layout layout(cache.desc);
  const float scale = launch.params.scale * 1.4426950408889634f;
  for (int i = threadIdx.x; i < row.heads * kBlockTokens; i += kDecodeThreads) {
    const int head = i / kBlockTokens, token = i % kBlockTokens;
    float sum = 0;
    if (tokens.place[token] >= 0) {
      const T *keys = static_cast<const T *>(cache.keys) + tokens.base[token];
      for (int dim = 0; dim < layout.head_dim; dim++) {
        sum = fmaf(q[head * layout.head_dim + dim], to_float(keys[layout.inside(sizeof(T), tokens.place[token], dim)]), sum);
      }
      if constexpr (kIsScaled<T>) sum *= cache.key_scale[tokens.scale[token]];
    }
    scores[i] = tokens.place[token] >= 0 ? sum * scale : -INFINITY;
  }
}

/* One warp a head: weights under the new maximum, and the factor for what was summed before. */
__device__ inline void weigh_tokens(const RowPages &row, float *scores, float *maxima, float *totals, float *factors) {
  const int lane = threadIdx.x % kWarp;
  for (int head = threadIdx.x / kWarp; head < row.heads; head += kDecodeThreads / kWarp) {
    const float s = scores[head * kBlockTokens + lane], before = maxima[head];
    float maximum = s;
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, distance));
    maximum = fmaxf(maximum, before);
    const float limit = maximum == -INFINITY ? 0.f : maximum, weight = s == -INFINITY ? 0.f : exp2f(s - limit), sum = warp_sum(weight);
    scores[head * kBlockTokens + lane] = weight;
    __syncwarp();
    if (lane != 0) continue;
    factors[head] = rescale(before, limit);
    totals[head] = totals[head] * factors[head] + sum;
    maxima[head] = maximum;
  }
}

template <typename T>
__device__ inline void add_values(const DecodeLaunch &launch, const RowPages &row, const TokenPlaces &tokens, const float *weights,
                                  const float *factors, float *acc) {
  const CacheView &cache = launch.params.cache;
  const Layout layout(cache.desc);
  for (int dim = threadIdx.x; dim < layout.head_dim; dim += kDecodeThreads) {
    float sums[kRowHeads];
#pragma unroll
    for (int head = 0; head < kRowHeads; head++) sums[head] = head < row.heads ? acc[head * layout.head_dim + dim] * factors[head] : 0.f;
    for (int token = 0; token < kBlockTokens; token++) {
      if (tokens.place[token] < 0) continue;
      const T *values = static_cast<const T *>(cache.values) + tokens.base[token];
      float value = to_float(values[layout.inside(sizeof(T), tokens.place[token], dim)]);
      if constexpr (kIsScaled<T>) value *= cache.value_scale[tokens.scale[token]];
#pragma unroll
      for (int head = 0; head < kRowHeads; head++) sums[head] = fmaf(weights[head * kBlockTokens + token], value, sums[head]);
    }
#pragma unroll
    for (int head = 0; head < kRowHeads; head++) {
      if (head < row.heads) acc[head * layout.head_dim + dim] = sums[head];
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kDecodeThreads) decode_generic_kernel(const __grid_constant__ DecodeLaunch launch) {
  extern __shared__ float memory[];
  __shared__ TokenPlaces tokens;
  let_next_start();
  RowPages row;
  const bool reads = find_pages(launch, row);
  wait_for_previous();
  if (!reads) return;
  const int head_dim = launch.params.cache.desc.head_dim;
  float *q = memory, *acc = q + kRowHeads * head_dim, *scores = acc + kRowHeads * head_dim;
  float *maxima = scores + kRowHeads * kBlockTokens, *totals = maxima + kRowHeads, *factors = totals + kRowHeads;
  for (int i = threadIdx.x; i < kRowHeads * head_dim; i += kDecodeThreads) {
    q[i] = i < row.heads * head_dim ? launch.params.q.row(row.sequence)[row.first_query_head * head_dim + i] : 0.f;
    acc[i] = 0;
  }
  for (int i = threadIdx.x; i < kRowHeads * kBlockTokens; i += kDecodeThreads) scores[i] = 0;
  if (threadIdx.x < kRowHeads) maxima[threadIdx.x] = -INFINITY, totals[threadIdx.x] = 0;
  const int count = (row.end - row.begin) << row.page_shift;
  for (int first = 0; first < count; first += kBlockTokens) {
    __syncthreads();
    find_tokens(launch, row, first, tokens);
    __syncthreads();
    score_tokens<T>(launch, row, tokens, q, scores);
    __syncthreads();
    weigh_tokens(row, scores, maxima, totals, factors);
    __syncthreads();
    add_values<T>(launch, row, tokens, scores, factors, acc);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < row.heads * head_dim / 4; i += kDecodeThreads) {
    const int head = i * 4 / head_dim;
    store_part(launch, row, i, *reinterpret_cast<const float4 *>(acc + i * 4), maxima[head], totals[head]);
  }
  join_row(launch, row);
}

}  // namespace ps
