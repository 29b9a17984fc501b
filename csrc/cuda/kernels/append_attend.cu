/* append_rotated of one token, then decode_attention over all pages, in one launch: norm and rotation no longer stand between the projections
 * and attention. Bound by latency; the pages are on their way before the projections are done.
 *
 * The first blocks attend as decode_attention does. Each norms and rotates the queries of its row, and the key, for itself, and puts the new
 * key and value into its tile: the pages need not have them yet. A further block per KV head appends. */
#include "append_rotated.cuh"
#include "decode_attention_mma.cuh"

namespace ps {
namespace {

/* A layer's pages without their newest token, and what makes it. Shared memory: [kRowHeads + 2, D]. */
template <typename Kv, int D>
struct Unfinished {
  static constexpr bool kReadsEarly = true;
  const AppendRotatedParams &append;
  const RowPages &row;
  float *heads; /* queries, then the key, then the value */
  int32_t newest; /* token of the block's list */

  /* All threads of the block call. */
  __device__ __forceinline__ const float *queries() const {
    const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    for (int head = warp; head < row.heads; head += warps) {
      rotate_head<1>(append, append.q.row(0) + (row.first_query_head + head) * D, append.q_norm, append.q_table.row(0), heads + head * D);
    }
    float *key = heads + kRowHeads * D, *value = key + D;
    if (warp == warps - 1) rotate_head<1>(append, append.k.row(0) + row.head * D, append.k_norm, append.k_table.row(0), key);
    for (int i = threadIdx.x; i < D; i += blockDim.x) value[i] = append.append.v.row(0)[row.head * D + i];
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
      store(to, heads + kRowHeads * D + dim);
      store(to + Tile::kMatrixBytes, heads + (kRowHeads + 1) * D + dim);
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

template <typename T, int D, int Warps, bool Grouped>
__global__ void __launch_bounds__(Warps *kWarp)
    append_attend_kernel(const __grid_constant__ AppendRotatedParams append, const __grid_constant__ DecodeLaunch launch) {
  extern __shared__ __align__(1024) unsigned char memory[];
  __shared__ alignas(16) float heads[(kRowHeads + 2) * D];
  __shared__ float shared[kWarp];
  const int attending = launch.rows * launch.most_splits, block = static_cast<int>(blockIdx.x);
  if (block >= attending) return append_token<T, T, Grouped, 1>(append, block - attending, launch.bad_index, heads, shared);
  RowPages row;
  if (!find_pages(launch, row)) {
    wait_for_previous(); /* every block, or the launch after this one could start before the one before it is done */
    return;
  }
  const int32_t newest = row.length - 1 - ((row.first_page + row.begin) << row.page_shift);
  HeadState<D> state;
  attend_pages<T, D, Warps>(launch, row, Unfinished<T, D>{append, row, heads, newest}, memory, state);
  __syncthreads();
  const Merged merged = merge_warps<T, D, Warps>(state, row.heads, reinterpret_cast<float *>(memory));
  finish_row(launch, row, merged.acc, merged.maxima, merged.totals);
}

template <typename T, int D>
void launch_joined(Backend &backend, const AppendRotatedParams &append, const DecodeLaunch &launch_params) {
  constexpr int kWarps = kFewRowsWarps;
  const ps_cache_desc &desc = append.append.cache.desc;
  const dim3 grid(static_cast<unsigned>(launch_params.rows * launch_params.most_splits + desc.num_kv_heads));
  auto *kernel = append.append.cache.group_mean ? append_attend_kernel<T, D, kWarps, true> : append_attend_kernel<T, D, kWarps, false>;
  launch(backend, "Could not launch append_attend", kernel, grid, dim3(kWarps * kWarp), DecodeTile<T, D, kWarps>::shared_bytes(backend.capability),
         append, launch_params);
}

/* Where a launch of both serves: one token of 16-bit pages, and heads that one pack of a lane holds. */
bool joins(const Backend &backend, const AppendRotatedParams &append, const DecodeAttentionParams &attend) {
  const ps_cache_desc &desc = append.append.cache.desc;
  const bool pages = desc.kv_type == PS_KV_DTYPE && desc.dtype != PS_F32 && (desc.head_dim == 64 || desc.head_dim == 128);
  return backend.capability >= 90 && pages && attend.sequences.sequences == 1 && is_one_token(append) && can_rotate(append) &&
         desc.num_kv_heads * row_blocks(desc) <= kFewRows;
}

}  // namespace

void append_attend(Backend &backend, const AppendRotatedParams &append, const DecodeAttentionParams &attend) {
  if (!joins(backend, append, attend) || !note_written(backend, append.append.cache, append.append.layer)) {
    append_rotated(backend, append);
    return decode_attention(backend, attend);
  }
  const DecodeLaunch launch_params = describe_decode(backend, attend);
  auto of_type = [&](auto type) {
    using T = decltype(type);
    if (append.append.cache.desc.head_dim == 64) launch_joined<T, 64>(backend, append, launch_params);
    else launch_joined<T, 128>(backend, append, launch_params);
  };
  if (append.append.cache.desc.dtype == PS_BF16) of_type(bf16{});
  else of_type(f16{});
}

}  // namespace ps
