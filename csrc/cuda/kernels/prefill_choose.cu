/* The pages before each tile of a prompt that its tokens attend to.
 *
 * Rows are the query heads of a KV head's group of the sampled tokens of a tile. Two launches multiply them with the statistics of all pages
 * that compete: the first sums e^score for each row, the second adds each page's shares over the rows. Multiplying twice costs less
 * than storing the scores of all rows. The third launch takes the best pages, with the code of page_select. Bound by arithmetic:
 * 4 d operations per row and page (8 d for diag and quest), 16 / 128 of the rows, and 1 / S of the keys of dense attention. */
#include "../layout.cuh"
#include "mma.cuh"
#include "select.cuh"

#include <algorithm>

namespace ps {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kRowBlock = 64;   /* rows that a warp multiplies at once */
constexpr int kTilePages = 16;  /* pages that a warp multiplies at once */
constexpr int kRoundPages = kWarps * kTilePages;
constexpr int64_t kStaticSharedBytes = kWarps * kRowBlock * 8; /* of the kernel that sums */
constexpr int kMostGroup = 16;  /* query heads of a KV head that the fast kernel takes */
constexpr float kLog2E = 1.4426950408889634f;

/* A row's part of sum(2^score) over a block's pages: largest score, and sum relative to it. */
struct Share {
  float largest, sum;
};

struct ChooseLaunch {
  PrefillChooseParams p;
  BadIndex *bad_index;
  Share *shares;  /* [tiles, Hk, chunks, rows] */
  float *scores;  /* [tiles, Hk, pages] */
  int32_t chunks, chunk_pages, rows, pages;
};

/* A tile of the prompt and a KV head, and the pages that compete. */
struct PromptRow {
  int64_t index;
  int32_t head, group, token, tokens, samples, rows;
  int32_t before, first, end; /* pages before the tile; those from first to end compete */
};

__device__ __forceinline__ PromptRow prompt_row(const PrefillChooseParams &p, int64_t index) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t tile = index / desc.num_kv_heads;
  PromptRow row;
  row.index = index;
  row.head = static_cast<int32_t>(index % desc.num_kv_heads);
  row.group = desc.num_query_heads / desc.num_kv_heads;
  row.token = static_cast<int32_t>(p.tiles.first(tile));
  row.tokens = static_cast<int32_t>(p.tiles.end(tile)) - row.token;
  row.samples = static_cast<int32_t>(sampled_tokens(row.tokens));
  row.rows = row.samples * row.group;
  row.before = static_cast<int32_t>((p.tiles.start + row.token) / desc.page_size);
  const Forced forced = forced_pages(p.k, p.sink_pages, p.recent_pages);
  row.first = forced.first;
  row.end = row.before > p.k ? row.before - forced.last : row.first;
  return row;
}

__device__ __forceinline__ const float *row_query(const PrefillChooseParams &p, const PromptRow &row, int32_t r) {
  const int64_t token = row.token + sampled_token(row.tokens, r / row.group);
  return p.q.row(token) + (int64_t(row.head) * row.group + r % row.group) * p.cache.desc.head_dim;
}

__device__ __forceinline__ float exp2_fast(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

/* Leaves out NaN. */
__device__ __forceinline__ void add_score(Share &share, float score) {
  if (!(score > -INFINITY)) return;
  const float largest = fmaxf(share.largest, score);
  share.sum = share.sum * exp2_fast(share.largest - largest) + exp2_fast(score - largest);
  share.largest = largest;
}

__device__ __forceinline__ void add_share(Share &share, const Share &other) {
  if (other.sum == 0) return;
  const float largest = fmaxf(share.largest, other.largest);
  share.sum = share.sum * exp2_fast(share.largest - largest) + other.sum * exp2_fast(other.largest - largest);
  share.largest = largest;
}

/* log2 of a row's sum over all chunks; infinite for a row that does not exist, so that its shares are 0. */
__device__ __forceinline__ float row_total(const ChooseLaunch &launch, const PromptRow &row, int32_t r) {
  if (r >= row.rows) return INFINITY;
  Share all{-INFINITY, 0};
  for (int chunk = 0; chunk < launch.chunks; chunk++) add_share(all, launch.shares[(row.index * launch.chunks + chunk) * launch.rows + r]);
  return all.largest + log2f(all.sum);
}

/* The queries of a tile in shared memory, in 16 bits, and what belongs to each. */
template <typename T, int D>
struct ChooseShared {
  static constexpr int kPitch = D + 32; /* numbers from row to row, so that 8 lanes read two rows without bank conflicts */
  T *first, *second;                    /* [rows, kPitch]: the query, or its positive part; its squares, or its negative part */
  float *factor, *spread, *total;       /* [rows] */

  static PS_HOST_DEVICE int64_t bytes(int64_t rows, bool two) { return rows * (kPitch * 2 * (two ? 2 : 1) + 3 * int64_t(sizeof(float))); }

  __device__ ChooseShared(unsigned char *memory, int32_t rows, bool two) {
    factor = reinterpret_cast<float *>(memory);
    spread = factor + rows;
    total = spread + rows;
    first = reinterpret_cast<T *>(total + rows);
    second = two ? first + rows * kPitch : first;
  }
};

/* A power of two per row keeps queries, and their squares, in the range of 16 bits. */
template <typename T, int D, bool kTwo>
__device__ __forceinline__ void load_rows(const ChooseLaunch &launch, const PromptRow &row, ChooseShared<T, D> &shared) {
  const PrefillChooseParams &p = launch.p;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const bool quest = p.scorer == PS_QUEST;
  for (int r = warp; r < launch.rows; r += kWarps) {
    const bool used = r < row.rows;
    const float *q = row_query(p, row, used ? r : 0);
    float x[D / kWarp], largest = 0, squares = 0;
#pragma unroll
    for (int i = 0; i < D / kWarp; i++) {
      x[i] = used ? q[i * kWarp + lane] : 0.f;
      squares += x[i] * x[i];
      largest = fmaxf(largest, fabsf(x[i]));
    }
    squares = warp_sum(squares);
    largest = warp_max_nan(largest);
    const int exponent = largest > 0 && isfinite(largest) ? ilogbf(largest) : 0;
    const float down = ldexpf(1.f, -exponent);
#pragma unroll
    for (int i = 0; i < D / kWarp; i++) {
      const float small = x[i] * down, positive = small > 0 ? small : 0;
      store_number(shared.first + r * ChooseShared<T, D>::kPitch + i * kWarp + lane, quest ? positive : small);
      if constexpr (kTwo) store_number(shared.second + r * ChooseShared<T, D>::kPitch + i * kWarp + lane, quest ? small - positive : small * small);
    }
    if (lane == 0) {
      shared.factor[r] = ldexpf(1.f, exponent);
      shared.spread[r] = p.scorer == PS_UNIQUE ? p.lambda * sqrtf(squares) : 0.f;
    }
  }
}

/* 16 pages of statistics as this lane (g, t) reads them: 8 numbers of pages g and g + 8 at a time. The order of dimensions does not matter to
 * a dot product, so the queries are read to match. */
template <typename T, int D>
struct PageTile {
  uint4 low[D / 32], high[D / 32];

  __device__ __forceinline__ void load(const T *rows, const int32_t (&physical)[2]) {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < D / 32; j++) {
      low[j] = __ldg(reinterpret_cast<const uint4 *>(rows + int64_t(physical[0]) * D + 32 * j + 8 * t));
      high[j] = __ldg(reinterpret_cast<const uint4 *>(rows + int64_t(physical[1]) * D + 32 * j + 8 * t));
    }
  }

  /* out[n]: scores of pages g, g + 8 and rows 8 n + 2 t, 8 n + 2 t + 1 */
  __device__ __forceinline__ void multiply(const T *queries, float (&out)[kRowBlock / 8][4]) const {
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < kRowBlock / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) out[n][i] = 0.f;
    }
#pragma unroll
    for (int j = 0; j < D / 32; j++) {
      const uint32_t a[2][4] = {{low[j].x, high[j].x, low[j].y, high[j].y}, {low[j].z, high[j].z, low[j].w, high[j].w}};
#pragma unroll
      for (int n = 0; n < kRowBlock / 8; n++) {
        const uint4 b = *reinterpret_cast<const uint4 *>(queries + (8 * n + g) * ChooseShared<T, D>::kPitch + 32 * j + 8 * t);
        multiply_add<T>(out[n], a[0], b.x, b.y);
        multiply_add<T>(out[n], a[1], b.z, b.w);
      }
    }
  }
};

/* What a launch reads of a KV head: rows of statistics of all physical pages. */
template <typename T>
struct HeadStatistics {
  const T *first, *second;
  const float *std;

  __device__ HeadStatistics(const PrefillChooseParams &p, int32_t head) {
    const Layout layout(p.cache.desc);
    const int64_t offset = layout.vector(p.layer, head, 0);
    const bool quest = p.scorer == PS_QUEST;
    first = static_cast<const T *>(quest ? p.cache.max : p.cache.mean) + offset;
    second = p.scorer == PS_DIAG ? static_cast<const T *>(p.cache.variance) + offset : quest ? static_cast<const T *>(p.cache.min) + offset : nullptr;
    std = p.cache.std + layout.page(p.layer, head, 0);
  }
};

/* kSums: writes shares; otherwise scores. kTwo: two rows of statistics per page, diag and quest. Grid: chunks x (tiles x KV heads). */
template <typename T, int D, bool kTwo, bool kSums>
__global__ void __launch_bounds__(kThreads) prompt_score_kernel(const __grid_constant__ ChooseLaunch launch) {
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  let_next_start();
  wait_for_previous();
  const PrefillChooseParams &p = launch.p;
  const PromptRow row = prompt_row(p, blockIdx.y);
  const int32_t begin = row.first + static_cast<int32_t>(blockIdx.x) * launch.chunk_pages, end = min(begin + launch.chunk_pages, row.end);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, t = lane % 4;
  ChooseShared<T, D> shared(dynamic_shared, launch.rows, kTwo);
  Share *shares = launch.shares + (row.index * launch.chunks + blockIdx.x) * launch.rows;
  if (begin >= end) {
    if (kSums && row.end > row.first) {
      for (int r = threadIdx.x; r < launch.rows; r += kThreads) shares[r] = {-INFINITY, 0};
    }
    return;
  }
  load_rows<T, D, kTwo>(launch, row, shared);
  if constexpr (!kSums) {
    for (int r = threadIdx.x; r < launch.rows; r += kThreads) shared.total[r] = row_total(launch, row, r);
    if (threadIdx.x == 0) add_to_counter(p.cache.counters->prompt_pages_scored, end - begin);
  }
  __syncthreads();

  const HeadStatistics<T> statistics(p, row.head);
  const float scale = p.scale * kLog2E;
  /* The outer loop is one round where scores are written, because a page's score is a sum over all rows. */
  for (int32_t block = 0; block < (kSums ? launch.rows : kRowBlock); block += kRowBlock) {
    Share own[kSums ? kRowBlock / 4 : 1];
    if constexpr (kSums) {
#pragma unroll
      for (int i = 0; i < kRowBlock / 4; i++) own[i] = {-INFINITY, 0};
    }
    for (int32_t page = begin + warp * kTilePages; page < end; page += kRoundPages) {
      int32_t physical[2];
      float std[2];
      PageTile<T, D> tile, second;
#pragma unroll
      for (int i = 0; i < 2; i++) {
        physical[i] = checked_page(launch.bad_index, p.page_table, 0, min(page + g + 8 * i, end - 1), p.cache.desc.num_pages);
        std[i] = statistics.std[physical[i]];
      }
      tile.load(statistics.first, physical);
      if constexpr (kTwo) second.load(statistics.second, physical);
      float shares_of[2] = {0, 0}; /* of pages g and g + 8 */
      for (int32_t rows = block; rows < (kSums ? block + kRowBlock : launch.rows); rows += kRowBlock) {
        float scores[kRowBlock / 8][4], others[kTwo ? kRowBlock / 8 : 1][4];
        tile.multiply(shared.first + rows * ChooseShared<T, D>::kPitch, scores);
        if constexpr (kTwo) second.multiply(shared.second + rows * ChooseShared<T, D>::kPitch, others);
#pragma unroll
        for (int n = 0; n < kRowBlock / 8; n++) {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const int r = rows + 8 * n + 2 * t + i % 2;
            const float factor = shared.factor[r];
            float score = scores[n][i] * factor + shared.spread[r] * std[i / 2];
            if constexpr (kTwo) score += p.scorer == PS_QUEST ? others[n][i] * factor : p.lambda * sqrtf(others[n][i]) * factor;
            score *= scale;
            if constexpr (kSums) {
              if (page + g + 8 * (i / 2) < end) add_score(own[2 * n + i % 2], score);
            } else {
              shares_of[i / 2] += exp2_fast(score - shared.total[r]);
            }
          }
        }
      }
      if constexpr (!kSums) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          shares_of[i] += __shfl_xor_sync(kAllLanes, shares_of[i], 1);
          shares_of[i] += __shfl_xor_sync(kAllLanes, shares_of[i], 2);
          const int32_t at = page + g + 8 * i;
          if (t == 0 && at < end) launch.scores[row.index * launch.pages + at] = shares_of[i];
        }
      }
    }
    if constexpr (kSums) {
      __shared__ Share of_warps[kWarps][kRowBlock];
#pragma unroll
      for (int i = 0; i < kRowBlock / 4; i++) {
#pragma unroll
        for (int distance = 4; distance < kWarp; distance *= 2) {
          add_share(own[i], {__shfl_xor_sync(kAllLanes, own[i].largest, distance), __shfl_xor_sync(kAllLanes, own[i].sum, distance)});
        }
        if (g == 0) of_warps[warp][i / 2 * 8 + 2 * t + i % 2] = own[i];
      }
      __syncthreads();
      for (int r = threadIdx.x; r < kRowBlock; r += kThreads) {
        Share all{-INFINITY, 0};
        for (int w = 0; w < kWarps; w++) add_share(all, of_warps[w][r]);
        shares[block + r] = all;
      }
      __syncthreads();
    }
  }
}

/* The same for any dtype, head and group size: a warp per page, plain arithmetic. Dynamic shared memory: shares [kWarps, rows]. */
template <typename T, bool kSums>
__global__ void __launch_bounds__(kThreads) prompt_score_generic(const __grid_constant__ ChooseLaunch launch) {
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  Share *own = reinterpret_cast<Share *>(dynamic_shared);
  let_next_start();
  wait_for_previous();
  const PrefillChooseParams &p = launch.p;
  const PromptRow row = prompt_row(p, blockIdx.y);
  const int32_t begin = row.first + static_cast<int32_t>(blockIdx.x) * launch.chunk_pages, end = min(begin + launch.chunk_pages, row.end);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, head_dim = p.cache.desc.head_dim;
  const Layout layout(p.cache.desc);
  const int64_t base = layout.vector(p.layer, row.head, 0);
  const auto number = [&](const void *pool, int64_t at) { return to_float(static_cast<const T *>(pool)[base + at]); };
  if (row.end == row.first) return;
  if (kSums) {
    for (int r = threadIdx.x; r < kWarps * launch.rows; r += kThreads) own[r] = {-INFINITY, 0};
  } else if (threadIdx.x == 0 && begin < end) {
    add_to_counter(p.cache.counters->prompt_pages_scored, end - begin);
  }
  __syncthreads();
  for (int32_t page = begin + warp; page < end; page += kWarps) {
    const int64_t physical = checked_page(launch.bad_index, p.page_table, 0, page, p.cache.desc.num_pages);
    float share = 0;
    for (int r = 0; r < row.rows; r++) {
      const float *q = row_query(p, row, r);
      float main = 0, squares = 0, other = 0;
      for (int dim = lane; dim < head_dim; dim += kWarp) {
        const float x = q[dim], positive = x > 0 ? x : 0;
        const int64_t at = physical * head_dim + dim;
        squares = fmaf(x, x, squares);
        if (p.scorer == PS_QUEST) main += positive * number(p.cache.max, at) + (x - positive) * number(p.cache.min, at);
        else main = fmaf(x, number(p.cache.mean, at), main);
        if (p.scorer == PS_DIAG) other = fmaf(x * x, number(p.cache.variance, at), other);
      }
      main = warp_sum(main);
      if (p.scorer == PS_UNIQUE) main += p.lambda * sqrtf(warp_sum(squares)) * p.cache.std[layout.page(p.layer, row.head, physical)];
      else if (p.scorer == PS_DIAG) main += p.lambda * sqrtf(warp_sum(other));
      main *= p.scale * kLog2E;
      if (kSums) {
        if (lane == 0) add_score(own[warp * launch.rows + r], main);
      } else {
        share += exp2_fast(main - row_total(launch, row, r));
      }
    }
    if (!kSums && lane == 0) launch.scores[row.index * launch.pages + page] = share;
  }
  if (!kSums) return;
  __syncthreads();
  for (int r = threadIdx.x; r < launch.rows; r += kThreads) {
    Share all{-INFINITY, 0};
    for (int w = 0; w < kWarps; w++) add_share(all, own[w * launch.rows + r]);
    launch.shares[(row.index * launch.chunks + blockIdx.x) * launch.rows + r] = all;
  }
}

/* Grid: tiles x KV heads. */
__global__ void __launch_bounds__(1024) prompt_select_kernel(const __grid_constant__ ChooseLaunch launch) {
  __shared__ SelectShared shared;
  let_next_start();
  wait_for_previous();
  const PrefillChooseParams &p = launch.p;
  const PromptRow row = prompt_row(p, blockIdx.x);
  const int32_t k = static_cast<int32_t>(p.k);
  int32_t *out = p.selected + row.index * k;
  if (row.before <= k) return take_all(row.before, out, p.counts + row.index);
  const Forced forced = forced_pages(p.k, p.sink_pages, p.recent_pages);
  write_forced(forced, row.before, k, out);
  if (threadIdx.x == 0) p.counts[row.index] = k;
  if (forced.best == 0) return;
  const float *scores = launch.scores + row.index * launch.pages + row.first;
  auto key = [&](int32_t i) { return ordered_key(scores[i]); };
  Keys<kMostItems, decltype(key)> keys(key, row.end - row.first);
  const Cut cut = find_cut(keys, forced.best, shared);
  write_taken(keys, cut, [&](int32_t i) { return row.first + i; }, out + forced.first, shared);
}

/* Returns whether the queries fit the shared memory. */
template <typename T, int D, bool kTwo>
bool score_fast(Backend &backend, const ChooseLaunch &launch_params, dim3 grid) {
  const int64_t bytes = ChooseShared<T, D>::bytes(launch_params.rows, kTwo);
  if (bytes + kStaticSharedBytes > backend.shared_bytes) return false;
  launch(backend, "Could not launch prefill_choose", prompt_score_kernel<T, D, kTwo, true>, grid, dim3(kThreads), bytes, launch_params);
  launch(backend, "Could not launch prefill_choose", prompt_score_kernel<T, D, kTwo, false>, grid, dim3(kThreads), bytes, launch_params);
  return true;
}

template <typename T, int D>
bool score_fast(Backend &backend, const ChooseLaunch &launch_params, dim3 grid) {
  const bool two = launch_params.p.scorer == PS_DIAG || launch_params.p.scorer == PS_QUEST;
  return two ? score_fast<T, D, true>(backend, launch_params, grid) : score_fast<T, D, false>(backend, launch_params, grid);
}

template <typename T>
bool score_with_tensor_cores(Backend &backend, const ChooseLaunch &launch_params, dim3 grid) {
  if constexpr (!std::is_same<T, float>::value) {
    switch (launch_params.p.cache.desc.head_dim) {
      case 64: return score_fast<T, 64>(backend, launch_params, grid);
      case 96: return score_fast<T, 96>(backend, launch_params, grid);
      case 128: return score_fast<T, 128>(backend, launch_params, grid);
      case 256: return score_fast<T, 256>(backend, launch_params, grid);
      default: break;
    }
  }
  return false;
}

}  // namespace

void prefill_choose(Backend &backend, const PrefillChooseParams &params) {
  const ps_cache_desc &desc = params.cache.desc;
  if (params.cache.mean_scale) throw Error(PS_UNSUPPORTED, "Prompts cannot choose pages by 8-bit means; create the cache without them");
  const int64_t index_rows = params.tiles.count() * desc.num_kv_heads, group = desc.num_query_heads / desc.num_kv_heads;
  const int64_t pages = (params.tiles.start + params.tiles.tokens) / desc.page_size + 1;
  const int64_t rows = ceil_div(kSampledTokens * group, int64_t(kRowBlock)) * kRowBlock;
  /* about four blocks per multiprocessor, each of whole rounds */
  const int64_t wanted = ceil_div(pages * index_rows, 4 * int64_t(backend.multiprocessors)), most = ceil_div(pages, int64_t(kRoundPages));
  const int64_t rounds = std::max<int64_t>(1, std::min(most, ceil_div(wanted, int64_t(kRoundPages))));
  ChooseLaunch launch_params{params, backend.bad_index, nullptr, nullptr, 0, 0, 0, 0};
  launch_params.chunk_pages = static_cast<int32_t>(rounds * kRoundPages);
  launch_params.chunks = static_cast<int32_t>(ceil_div(pages, int64_t(launch_params.chunk_pages)));
  launch_params.rows = static_cast<int32_t>(rows);
  launch_params.pages = static_cast<int32_t>(pages);
  const int64_t shares_bytes = index_rows * launch_params.chunks * rows * int64_t(sizeof(Share));
  char *memory = static_cast<char *>(scratch(backend, shares_bytes + index_rows * pages * int64_t(sizeof(float))));
  launch_params.shares = reinterpret_cast<Share *>(memory);
  launch_params.scores = reinterpret_cast<float *>(memory + shares_bytes);

  const dim3 grid(static_cast<unsigned>(launch_params.chunks), static_cast<unsigned>(index_rows));
  with_dtype(desc.dtype, [&](auto type) {
    using T = decltype(type);
    if (group <= kMostGroup && score_with_tensor_cores<T>(backend, launch_params, grid)) return;
    const int64_t bytes = kWarps * rows * int64_t(sizeof(Share));
    launch(backend, "Could not launch prefill_choose", prompt_score_generic<T, true>, grid, dim3(kThreads), bytes, launch_params);
    launch(backend, "Could not launch prefill_choose", prompt_score_generic<T, false>, grid, dim3(kThreads), bytes, launch_params);
  });
  const dim3 block(pages <= 2048 ? 128 : pages <= 4096 ? 256 : pages <= 8192 ? 512 : 1024);
  launch(backend, "Could not launch prefill_choose", prompt_select_kernel, dim3(static_cast<unsigned>(index_rows)), block, 0, launch_params);
}

}  // namespace ps
