/* Prefill attention in f32 arithmetic, for pages of every type and heads of every size: what the tensor cores have no kernel for, and
 * pages of f32, whose precision they would lose.
 *
 * A block has 64 query rows and walks blocks of 64 tokens. Thread (y, x) of 16 x 16 computes the scores of rows 4y.. and tokens
 * x, x + 16, x + 32, x + 48, and keeps the results of rows 4y.. and dimensions 64j + 4x.. in registers. Keys and queries pass through
 * shared memory 32 dimensions at a time, values 16 tokens at a time, widened to f32. Bound by arithmetic. */
#pragma once

#include "prefill_attention_tile.cuh"

namespace ps {
namespace prefill {

constexpr int kGenericThreads = 256;
constexpr int kGenericRows = 64;
constexpr int kGenericTokens = 64;
constexpr int kDimsAtOnce = 32;
constexpr int kTokensAtOnce = 16; /* each of the 16 rows of threads loads one */
/* Floats from row to row: multiples of 4 that spread 8 rows over all banks. */
constexpr int kDimStride = kDimsAtOnce + 4, kScoreStride = kGenericTokens + 4;

/* Shared memory of the kernel for heads of up to `padded` dimensions. */
struct GenericShared {
  float queries[kGenericRows][kDimStride];
  float keys[kGenericTokens][kDimStride];
  float weights[kGenericRows][kScoreStride];
  /* then values [kTokensAtOnce][padded] */
};

__device__ __forceinline__ float4 load_four(const float *from) { return *reinterpret_cast<const float4 *>(from); }
template <typename T>
__device__ __forceinline__ float4 load_four(const T *from) {
  alignas(8) T numbers[4];
  *reinterpret_cast<uint2 *>(numbers) = *reinterpret_cast<const uint2 *>(from);
  return make_float4(to_float(numbers[0]), to_float(numbers[1]), to_float(numbers[2]), to_float(numbers[3]));
}

/* Where a position's numbers lie in the pools. */
struct CachedToken {
  int64_t page; /* first element */
  int place;
  bool present; /* false from tile.end on, where NaN may stand: it counts as zero */
};

__device__ __forceinline__ CachedToken cached_token(const Args &args, const QueryTile &tile, int32_t position) {
  const int page_size = args.p.cache.desc.page_size;
  if (position >= tile.end) return {0, 0, false};
  return {Layout(args.p.cache.desc).tokens(args.p.layer, tile.head, physical_page(args, tile, position / page_size)), position % page_size, true};
}

/* Four numbers of it, from dimension `dim` (a multiple of 4) on. */
template <typename T>
__device__ __forceinline__ float4 load_cached(const Args &args, const CachedToken &token, const void *pool, int dim) {
  if (!token.present) return make_float4(0.f, 0.f, 0.f, 0.f);
  return load_four(static_cast<const T *>(pool) + token.page + Layout(args.p.cache.desc).inside(sizeof(T), token.place, dim));
}

/* scores[i][j] of row 4y + i and token x + 16j. A thread loads numbers of query row threadIdx.x / 4, given as `query`, and of the token
 * with that number. */
template <typename T>
__device__ __forceinline__ void generic_scores(const Args &args, const QueryTile &tile, GenericShared &shared, const float *query, int32_t first,
                                               float (&scores)[4][4]) {
  const int y = threadIdx.x / 16, x = threadIdx.x % 16, head_dim = args.p.cache.desc.head_dim, loaded = threadIdx.x / 4;
  const CachedToken token = cached_token(args, tile, first + loaded);
  for (int dim = 0; dim < head_dim; dim += kDimsAtOnce) {
    const int width = min(kDimsAtOnce, head_dim - dim); /* 32 or 16 */
    __syncthreads();
    for (int column = threadIdx.x % 4 * 4; column < width; column += 16) {
      const float *q = query + dim + column;
      const float scale = args.p.scale;
      *reinterpret_cast<float4 *>(&shared.queries[loaded][column]) = make_float4(q[0] * scale, q[1] * scale, q[2] * scale, q[3] * scale);
      *reinterpret_cast<float4 *>(&shared.keys[loaded][column]) = load_cached<T>(args, token, args.p.cache.keys, dim + column);
    }
    __syncthreads();
    for (int column = 0; column < width; column += 4) {
      float4 q[4], k[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        q[i] = *reinterpret_cast<const float4 *>(&shared.queries[4 * y + i][column]);
        k[i] = *reinterpret_cast<const float4 *>(&shared.keys[x + 16 * i][column]);
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
          scores[i][j] += q[i].x * k[j].x;
          scores[i][j] += q[i].y * k[j].y;
          scores[i][j] += q[i].z * k[j].z;
          scores[i][j] += q[i].w * k[j].w;
        }
      }
    }
  }
}

/* Scores of a row become weights in shared memory. Returns the factor that rescales what was summed before. */
__device__ __forceinline__ float generic_weigh(const float (&scores)[4], const Sight &seen, float &maximum, float &total, float *weights) {
  const int x = threadIdx.x % 16;
  float weight[4], largest = maximum;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const int column = x + 16 * j;
    weight[j] = column < seen.low || column > seen.high ? kMinusInfinity : scores[j];
    largest = fmaxf(largest, weight[j]);
  }
#pragma unroll
  for (int distance = 8; distance > 0; distance /= 2) largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  const float base = largest == kMinusInfinity ? 0.f : largest; /* nothing seen yet: the weights must become 0, not NaN */
  float sum = 0.f;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    weight[j] = expf(weight[j] - base);
    weights[x + 16 * j] = weight[j];
    sum += weight[j];
  }
#pragma unroll
  for (int distance = 8; distance > 0; distance /= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
  const float factor = expf(maximum - base);
  maximum = largest;
  total = total * factor + sum;
  return factor;
}

/* out[i][j] of row 4y + i and dimensions 64j + 4x.. += weights x values */
template <typename T, int kBlocks>
__device__ __forceinline__ void generic_values(const Args &args, const QueryTile &tile, const GenericShared &shared, float *values, int32_t first,
                                               float4 (&out)[4][kBlocks]) {
  const int y = threadIdx.x / 16, x = threadIdx.x % 16, head_dim = args.p.cache.desc.head_dim;
  for (int token = 0; token < kGenericTokens && first + token < tile.end; token += kTokensAtOnce) {
    __syncthreads();
    const CachedToken cached = cached_token(args, tile, first + token + y);
    for (int dim = 4 * x; dim < head_dim; dim += 64) {
      *reinterpret_cast<float4 *>(values + y * kBlocks * 64 + dim) = load_cached<T>(args, cached, args.p.cache.values, dim);
    }
    __syncthreads();
#pragma unroll 4
    for (int row = 0; row < kTokensAtOnce; row++) {
      float weight[4];
#pragma unroll
      for (int i = 0; i < 4; i++) weight[i] = shared.weights[4 * y + i][token + row];
#pragma unroll
      for (int j = 0; j < kBlocks; j++) {
        const float4 v = *reinterpret_cast<const float4 *>(values + row * kBlocks * 64 + 64 * j + 4 * x);
#pragma unroll
        for (int i = 0; i < 4; i++) {
          out[i][j].x += weight[i] * v.x;
          out[i][j].y += weight[i] * v.y;
          out[i][j].z += weight[i] * v.z;
          out[i][j].w += weight[i] * v.w;
        }
      }
    }
  }
}

/* kBlocks: of 64 dimensions, enough for a head. Grid: tiles x KV heads (query_tile). Shared memory: GenericShared and the values. */
template <typename T, int kBlocks>
__global__ void __launch_bounds__(kGenericThreads) prefill_attention_generic(const __grid_constant__ Args args) {
  extern __shared__ __align__(1024) unsigned char dynamic_shared[];
  GenericShared &shared = *reinterpret_cast<GenericShared *>(dynamic_shared);
  float *values = reinterpret_cast<float *>(dynamic_shared + sizeof(GenericShared));
  let_next_start();
  wait_for_previous();

  const QueryTile tile = query_tile(args, kGenericRows);
  if (tile.rows <= 0) return;
  const int y = threadIdx.x / 16, x = threadIdx.x % 16, head_dim = args.p.cache.desc.head_dim;
  const float *query = query_row(args, tile, threadIdx.x / 4);
  float4 out[4][kBlocks] = {};
  float maximum[4], total[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    maximum[i] = kMinusInfinity;
    total[i] = 0.f;
  }
  for (int i = threadIdx.x; i < kTokensAtOnce * kBlocks * 64; i += kGenericThreads) values[i] = 0.f; /* past the head's dimensions */

  for (int32_t first = tile.oldest / kGenericTokens * kGenericTokens; first < tile.end; first += kGenericTokens) {
    float scores[4][4] = {};
    generic_scores<T>(args, tile, shared, query, first, scores);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int row = 4 * y + i;
      const float factor = generic_weigh(scores[i], sight(tile, tile.position(row), first), maximum[i], total[i], shared.weights[row]);
#pragma unroll
      for (int j = 0; j < kBlocks; j++) {
        out[i][j] = make_float4(out[i][j].x * factor, out[i][j].y * factor, out[i][j].z * factor, out[i][j].w * factor);
      }
    }
    generic_values<T, kBlocks>(args, tile, shared, values, first, out);
  }

#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (4 * y + i >= tile.rows) continue;
    float *target = out_row(args, tile, 4 * y + i);
#pragma unroll
    for (int j = 0; j < kBlocks; j++) {
      const float numbers[4] = {out[i][j].x, out[i][j].y, out[i][j].z, out[i][j].w};
#pragma unroll
      for (int e = 0; e < 4; e++) {
        if (64 * j + 4 * x + e < head_dim) target[64 * j + 4 * x + e] = numbers[e] / total[i];
      }
    }
  }
}

}  // namespace prefill
}  // namespace ps
