/* append_rotated of one token, then decode_attention over all pages, in one launch: norm and rotation no longer stand between the projections
 * and attention. Bound by latency; the pages are on their way before the projections are done.
 *
 * The first blocks attend as decode_attention does. Each norms and rotates the queries of its row for itself, and the one that has the newest
 * token puts its key and value into its tile: the pages need not have them yet. A further block per KV head appends. Blocks come in clusters.
 * Where the splits of a row fit one, its blocks pass their parts to each other; else through memory. They have room beside a block of the
 * product before them, so that they are there when it ends. */
#include "append_rotated.cuh"
#include "cluster_join.cuh"
#include "decode_attention_mma.cuh"

namespace ps {
namespace {

/* A layer's pages without their newest token, and what makes it. Shared memory: [kRowHeads + 2, stride]. */
template <typename Kv, int D>
struct Unfinished {
  static constexpr bool kReadsEarly = true, kKnowsPages = false;
  static constexpr int stride = D + 4; /* of queries: no bank conflicts */
  const AppendRotatedParams &append;
  const RowPages &row;
  float *heads; /* queries, then the key, then the value */
  int32_t newest; /* token of the block's list */

  /* All threads of the block call. */
  __device__ __forceinline__ const float *queries() const {
    const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    for (int head = warp; head < row.heads; head += warps) {
      rotate_head<1>(append, append.q.row(0) + (row.first_query_head + head) * D, append.q_norm, append.q_table.row(0), heads + head * stride);
    }
    float *key = heads + kRowHeads * stride, *value = key + D;
    if (newest < (row.end - row.begin) << row.page_shift) {
      if (warp == warps - 1) rotate_head<1>(append, append.k.row(0) + row.head * D, append.k_norm, append.k_table.row(0), key);
      for (int i = threadIdx.x; i < D; i += blockDim.x) value[i] = __ldcg(append.append.v.row(0) + row.head * D + i);
    }
    __syncthreads();
    return heads;
  }

  __device__ __forceinline__ void complete(int tile, uint32_t address) const {
    if (newest / kTileTokens != tile) return;
    using Tile = DecodeTile<Kv, D>;
    const int lane = threadIdx.x % kWarp, dim = lane * 4;
    if (dim < D) {
      const uint32_t to = address + newest % kTileTokens / 8 * Tile::kHalfBytes + dim / Tile::kWidth * Tile::kUnitBytes +
                          2 * swizzled(Tile::kWidth, newest % 8, dim % Tile::kWidth);
      store(to, heads + kRowHeads * stride + dim);
      store(to + Tile::kMatrixBytes, heads + kRowHeads * stride + D + dim);
    }
    __syncwarp();
  }

 private:
  static __device__ __forceinline__ void store(uint32_t to, const float *numbers) {
    alignas(8) Kv rounded[4];
#pragma unroll
    for (int i = 0; i < 4; i++) store_number(rounded + i, numbers[i]);
    const uint2 bits = *reinterpret_cast<const uint2 *>(rounded);
    asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(to), "r"(bits.x), "r"(bits.y) : "memory");
  }
};

template <typename T, int D, bool Grouped>
__global__ void __launch_bounds__(kDecodeThreads)
    append_attend_kernel(const __grid_constant__ AppendRotatedParams append, const __grid_constant__ DecodeLaunch launch) {
  extern __shared__ __align__(1024) unsigned char memory[];
  __shared__ alignas(16) float heads[kRowHeads * Unfinished<T, D>::stride + 2 * D];
  __shared__ float shared[kWarp];
  let_next_start(); /* the next product then requests its first weights while the projections end, and not while parts are joined */
  cluster_sync(); /* from here on all blocks are there to be written to */
  const int attending = launch.rows * launch.most_splits, block = static_cast<int>(blockIdx.x);
  if (block >= attending) {
    if (block - attending < append.append.cache.desc.num_kv_heads)
      append_token<T, T, Grouped, 1>(append, 0, block - attending, launch.bad_index, heads, shared);
    else wait_for_previous(); /* every block, or the launch after this one could start before the one before it is done */
    return;
  }
  RowPages row;
  if (!find_pages(launch, row)) {
    wait_for_previous();
    return;
  }
  const int32_t newest = row.length - 1 - ((row.first_page + row.begin) << row.page_shift);
  HeadState<D> state;
  attend_pages<T, D, kDecodeWarps>(launch, row, Unfinished<T, D>{append, row, heads, newest}, memory, state);
  const Inbox inbox(memory + DecodeTile<T, D>::kSharedBytes, row, D);
  const bool passes = row.splits <= kClusterSplits;
  merge_warps<T, D, kDecodeWarps>(state, row.heads, reinterpret_cast<float *>(memory), [&](int i, const float4 &sum, float maximum, float total) {
    if (passes) inbox.pass(row, i, sum, maximum, total);
    else store_part(launch, row, i, sum, maximum, total);
  });
  if (!passes) return join_row(launch, row);
  cluster_sync();
  inbox.write(launch, row, row.heads * D / 4);
}

constexpr int64_t kStaticBytes = (kRowHeads * Unfinished<bf16, 128>::stride + 2 * 128 + kWarp) * sizeof(float) + 1024;

/* False when this GPU does not run such clusters. */
template <typename T, int D>
bool launch_joined(Backend &backend, const AppendRotatedParams &append, DecodeLaunch params) {
  const ps_cache_desc &desc = append.append.cache.desc;
  params.most_splits = static_cast<int32_t>(ceil_div(params.most_splits, kClusterSplits) * kClusterSplits);
  auto *kernel = append.append.cache.group_mean ? append_attend_kernel<T, D, true> : append_attend_kernel<T, D, false>;
  const int64_t clusters = (int64_t(params.rows) * params.most_splits) / kClusterSplits + ceil_div(desc.num_kv_heads, kClusterSplits);
  const int64_t shared_bytes = DecodeTile<T, D>::kSharedBytes +
                               Inbox::bytes(std::min<int64_t>(kRowHeads, desc.num_query_heads / desc.num_kv_heads), D, kClusterSplits);
  if (shared_bytes + kStaticBytes > backend.shared_bytes) return false;
  leave_no_cache("Could not launch append_attend", kernel);
  return launch_clusters_together(backend, "Could not launch append_attend", kernel, clusters, 1, kClusterSplits, dim3(kDecodeThreads), shared_bytes,
                                  append, params);
}

/* Where a launch of both serves. */
bool joins(const Backend &backend, const AppendRotatedParams &append, const DecodeAttentionParams &attend) {
  const ps_cache_desc &desc = append.append.cache.desc;
  return backend.capability >= 90 && joins_attention(append, attend.sequences) && desc.num_kv_heads * row_blocks(desc) <= kFewRows;
}

}  // namespace

void append_attend(Backend &backend, const AppendRotatedParams &append, const DecodeAttentionParams &attend) {
  bool launched = false;
  if (joins(backend, append, attend) && note_written(backend, append.append.cache, append.append.layer)) {
    const DecodeLaunch launch_params = describe_decode(backend, attend);
    auto of_type = [&](auto type) {
      using T = decltype(type);
      if (append.append.cache.desc.head_dim == 64) launched = launch_joined<T, 64>(backend, append, launch_params);
      else launched = launch_joined<T, 128>(backend, append, launch_params);
    };
    if (append.append.cache.desc.dtype == PS_BF16) of_type(bf16{});
    else of_type(f16{});
  }
  if (launched) return;
  append_rotated(backend, append);
  decode_attention(backend, attend);
}

}  // namespace ps
