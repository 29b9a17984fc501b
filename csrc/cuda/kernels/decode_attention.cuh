/* What the decode attention kernels share: which pages a row reads, and how its splits become one answer.
 *
 * A row is one sequence and up to kRowHeads query heads of one KV head. Its list of pages is cut into splits, one block each; the
 * block that finishes last joins them in order. */
#pragma once

#include "../common.cuh"
#include "../layout.cuh"
#include "coarse_choose.h"
#include "rounded_rows.cuh"

namespace ps {

constexpr int kRowHeads = 8;
constexpr int kDecodeThreads = 128;
constexpr int kMaxSplits = 64;
constexpr int kFewRows = 16;
constexpr int kFewBlocks = 132;   /* for few rows: one per multiprocessor, so that the next launch fits beside it and joining is short */
constexpr int kClusterSplits = 8, kClusterTokens = 4096; /* so few tokens are split for one cluster, whose blocks join them sooner */
constexpr int kBusyRows = 64;     /* from here on rows keep the device busy by themselves, and joining splits costs more than it gains */
constexpr int kManyBlocks = 4096; /* for many: enough to even out their waves */
constexpr int kPartialExtra = 4;    /* maximum, total, and padding to 16 bytes */

inline PS_HOST_DEVICE int64_t row_blocks(const ps_cache_desc &desc) { return (desc.num_query_heads / desc.num_kv_heads + kRowHeads - 1) / kRowHeads; }

/* Splits a row may have when there are so many rows; rows * splits stays below kManyBlocks + rows. */
inline PS_HOST_DEVICE int64_t max_splits(int64_t rows) {
  const int64_t splits = rows <= kFewRows ? kFewBlocks / rows : (kManyBlocks + rows - 1) / rows;
  return splits < kMaxSplits ? splits : kMaxSplits;
}

/* Splits of a list of so many tokens. Depends on nothing else, so that dense and a selection of all pages give the same bits. */
inline PS_HOST_DEVICE int64_t splits_of(int64_t tokens, int64_t rows) {
  const int64_t smallest = rows >= kBusyRows ? 512 : 64, wanted = (tokens + smallest - 1) / smallest;
  const int64_t most = tokens <= kClusterTokens && max_splits(rows) > kClusterSplits ? kClusterSplits : max_splits(rows);
  return wanted < 1 ? 1 : wanted < most ? wanted : most;
}

struct DecodeLaunch {
  DecodeAttentionParams params;
  float *partials;    /* [rows, most_splits, kRowHeads, d + kPartialExtra] */
  int32_t *arrivals;  /* [rows], zero between launches */
  int32_t *ready;     /* nullptr, or RowFlags (coarse_choose.h) of the launch before, which may still run; [rows], zero between launches */
  BadIndex *bad_index;
  int32_t rows, most_splits; /* of this launch */
  RoundedCopy rounded;       /* of the answers, for the product behind */
};

/* What a launch needs beside the checked parameters. */
DecodeLaunch describe_decode(Backend &backend, const DecodeAttentionParams &params);
void decode_attention(Backend &backend, DecodeLaunch launch);
/* Starts beside the launch that chooses its pages, if that sets these flags. */
RowFlags describe_flags(const DecodeLaunch &launch);

/* One block's share of the work. */
struct RowPages {
  int64_t sequence, head, first_query_head;
  const int32_t *table, *selected; /* selected: nullptr for all from first_page on */
  const int32_t *physical;         /* where the pages of the list are known (decode_tile.cuh) */
  int32_t first_page, count, first_token, length;
  int32_t row, split, splits, begin, end; /* places of the list that this block reads */
  int32_t heads, page_shift; /* a page holds 1 << page_shift tokens */
};

/* Waits until other blocks have set a row's flag, of this launch or of the one before, and takes 1 off it. All threads of the block call. */
__device__ inline void wait_until_ready(int32_t *flag) {
  if (threadIdx.x == 0) {
    int32_t is_set = 0;
    while (!is_set) {
      asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(is_set) : "l"(__cvta_generic_to_global(flag)) : "memory");
      if (!is_set) __nanosleep(200);
    }
    atomicSub(flag, 1);
  }
  __syncthreads();
}

/* Fills in the block's share; false when it has none. Waits for the kernels before this one only where one of them wrote the list:
 * lengths and page tables come from copies alone. */
__device__ inline bool find_pages(const DecodeLaunch &launch, RowPages &out) {
  const DecodeAttentionParams &p = launch.params;
  const ps_cache_desc &desc = p.cache.desc;
  const int32_t group = desc.num_query_heads / desc.num_kv_heads, blocks = static_cast<int32_t>(row_blocks(desc));
  out.row = blockIdx.x / launch.most_splits;
  out.split = blockIdx.x % launch.most_splits;
  const int32_t pair = out.row / blocks, first_head = out.row % blocks * kRowHeads;
  out.sequence = pair / desc.num_kv_heads;
  out.head = pair % desc.num_kv_heads;
  out.first_query_head = out.head * group + first_head;
  out.heads = min(kRowHeads, group - first_head);
  out.page_shift = __ffs(desc.page_size) - 1;
  if (launch.ready != nullptr) wait_until_ready(launch.ready + pair);
  out.length = checked_length(launch.bad_index, p.sequences, out.sequence, desc.page_size);
  if (out.length == 0) return false;
  out.table = p.sequences.page_table + out.sequence * p.sequences.table_stride;
  const int32_t pages = (out.length + desc.page_size - 1) / desc.page_size;
  out.first_token = p.window > 0 && out.length > p.window ? out.length - p.window : 0;
  out.first_page = out.first_token / desc.page_size;
  out.count = pages - out.first_page;
  out.selected = out.physical = nullptr;
  if (p.selected != nullptr) {
    if (launch.ready == nullptr) wait_for_previous();
    out.selected = p.selected + static_cast<int64_t>(pair) * p.k;
    out.count = p.counts[pair];
    if (out.count < 1 || out.count > p.k) {
      note_bad_index(launch.bad_index, kCounts, pair, out.count, p.k);
      return false;
    }
  }
  out.splits = static_cast<int32_t>(splits_of(static_cast<int64_t>(out.count) * desc.page_size, launch.rows));
  if (out.split == 0 && first_head == 0 && threadIdx.x == 0) {
    add_to_counter(p.cache.counters->pages_attended, out.count);
    add_to_counter(p.cache.counters->pages_in_context, pages);
  }
  out.begin = static_cast<int32_t>(static_cast<int64_t>(out.count) * out.split / out.splits);
  out.end = static_cast<int32_t>(static_cast<int64_t>(out.count) * (out.split + 1) / out.splits);
  return out.split < out.splits;
}

/* Logical page at a place of the list. */
__device__ __forceinline__ int32_t logical_page(const DecodeLaunch &launch, const RowPages &row, int32_t place) {
  if (row.selected == nullptr) return row.first_page + place;
  const int32_t pages = (row.length + (1 << row.page_shift) - 1) >> row.page_shift;
  return checked_index(launch.bad_index, kSelected, row.selected - launch.params.selected + place, row.selected[place], pages);
}

__device__ __forceinline__ int32_t physical_page(const DecodeLaunch &launch, const RowPages &row, int32_t logical) {
  return checked_index(launch.bad_index, kPageTable, row.table - launch.params.sequences.page_table + logical, row.table[logical],
                       launch.params.cache.desc.num_pages);
}

/* [heads, d] of the row. */
__device__ __forceinline__ const float *queries_of(const DecodeLaunch &launch, const RowPages &row) {
  return launch.params.q.row(row.sequence) + row.first_query_head * launch.params.cache.desc.head_dim;
}

/* Factor that brings a sum taken under `maximum` (base 2) to that of `joint`. */
__device__ __forceinline__ float rescale(float maximum, float joint) { return maximum == -INFINITY ? 0.f : exp2f(maximum - joint); }

__device__ __forceinline__ void add_scaled(float4 &sum, const float4 &number, float factor) {
  sum.x += number.x * factor;
  sum.y += number.y * factor;
  sum.z += number.z * factor;
  sum.w += number.w * factor;
}

/* Four numbers of a row's answer, from those of its splits. part_of(split): maximum (base 2) and total; numbers_of(split): what was summed
 * under that maximum. AtOnce splits are requested together, those past the last as the last one. */
template <int AtOnce, typename PartOf, typename NumbersOf>
__device__ __forceinline__ float4 join_numbers(int splits, const PartOf &part_of, const NumbersOf &numbers_of) {
  float4 sum{};
  float joint = -INFINITY, total = 0;
#pragma unroll 1
  for (int first = 0; first < splits; first += AtOnce) {
    float2 parts[AtOnce];
    float4 numbers[AtOnce];
#pragma unroll
    for (int i = 0; i < AtOnce; i++) {
      const int split = min(first + i, splits - 1);
      parts[i] = part_of(split);
      numbers[i] = numbers_of(split);
    }
    if (first == 0) {
#pragma unroll
      for (int i = 0; i < AtOnce; i++) joint = fmaxf(joint, parts[i].x);
#pragma unroll 1
      for (int split = AtOnce; split < splits; split++) joint = fmaxf(joint, part_of(split).x);
    }
#pragma unroll
    for (int i = 0; i < AtOnce; i++) {
      if (first + i >= splits) break;
      const float factor = rescale(parts[i].x, joint);
      total += parts[i].y * factor;
      add_scaled(sum, numbers[i], factor);
    }
  }
  float4 out{};
  add_scaled(out, sum, 1.f / total);
  return out;
}

/* Writes numbers 4 i to 4 i + 3 of the row's answer, which may lie at any multiple of 4 bytes. */
__device__ __forceinline__ void store_answer(const DecodeLaunch &launch, const RowPages &row, int i, const float4 &numbers) {
  const int64_t column = row.first_query_head * launch.params.cache.desc.head_dim + i * 4;
  float *out = launch.params.out.row(row.sequence) + column;
  out[0] = numbers.x;
  out[1] = numbers.y;
  out[2] = numbers.z;
  out[3] = numbers.w;
  launch.rounded.store<4>(row.sequence, column, {numbers.x, numbers.y, numbers.z, numbers.w});
}

/* Parts of the row's answer that its splits leave in memory: of each head D numbers, maximum, total, and padding. */
struct Parts {
  float *first;
  int32_t head_stride, split_stride;

  __device__ __forceinline__ Parts(const DecodeLaunch &launch, const RowPages &row)
      : head_stride(launch.params.cache.desc.head_dim + kPartialExtra), split_stride(kRowHeads * head_stride) {
    first = launch.partials + static_cast<int64_t>(row.row) * launch.most_splits * split_stride;
  }
};

/* Numbers 4 i to 4 i + 3 of [heads, d] of this block's split, which were summed under `maximum` (base 2), with the total of the weights: to
 * the answer where the row has one split, else to memory. */
__device__ __forceinline__ void store_part(const DecodeLaunch &launch, const RowPages &row, int i, const float4 &sum, float maximum, float total) {
  if (row.splits == 1) {
    float4 answer{};
    add_scaled(answer, sum, 1.f / total);
    return store_answer(launch, row, i, answer);
  }
  const Parts parts(launch, row);
  const int head_dim = launch.params.cache.desc.head_dim, dim = i * 4 % head_dim;
  float *own = parts.first + row.split * parts.split_stride + i * 4 / head_dim * parts.head_stride;
  *reinterpret_cast<float4 *>(own + dim) = sum;
  if (dim == 0) *reinterpret_cast<float2 *>(own + head_dim) = {maximum, total};
}

/* Writes the row's answer, if this block is the last of the row to have stored its parts. All threads call. */
__device__ inline void join_row(const DecodeLaunch &launch, const RowPages &row) {
  if (row.splits == 1) return;
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(launch.arrivals + row.row, 1) == row.splits - 1;
    if (is_last) launch.arrivals[row.row] = 0;
  }
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  const Parts parts(launch, row);
  const int head_dim = launch.params.cache.desc.head_dim;
  for (int i = threadIdx.x; i < row.heads * head_dim / 4; i += blockDim.x) {
    const float *own = parts.first + i * 4 / head_dim * parts.head_stride;
    const float4 answer = join_numbers<16>(
        row.splits, [&](int split) { return __ldcg(reinterpret_cast<const float2 *>(own + split * parts.split_stride + head_dim)); },
        [&](int split) { return __ldcg(reinterpret_cast<const float4 *>(own + split * parts.split_stride + i * 4 % head_dim)); });
    store_answer(launch, row, i, answer);
  }
}

}  // namespace ps
