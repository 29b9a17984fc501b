/* The share of every page in the exact softmax of a query: a warp a page finds the logarithm of the sum of e^score over its tokens, for
 * all heads of the group, then a block a query head turns these into shares. Reads every key once, so it is bound by their bytes. */
#include "pack.cuh"
#include "../layout.cuh"

namespace ps {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * kWarp;
constexpr int kNumbers = 8;               /* of a key, that a lane loads at once: contiguous in every layout */
constexpr int kLanesAToken = 4, kTokens = kWarp / kLanesAToken;
constexpr int kMostHeads = 16;            /* of a group, at once */

struct MassLaunch {
  PageMassParams params;
  BadIndex *bad_index;
};

/* Pages [first, end) of a sequence have a share; its first token that has one. */
struct Range {
  int32_t length, first_token, first_page, pages;
};

__device__ __forceinline__ Range range_of(const MassLaunch &launch, int64_t sequence) {
  const PageMassParams &p = launch.params;
  const int32_t page_size = p.cache.desc.page_size, length = checked_length(launch.bad_index, p.sequences, sequence, page_size);
  const int32_t first = p.window > 0 && length > p.window ? length - p.window : 0;
  return {length, first, first / page_size, (length + page_size - 1) / page_size};
}

/* A running maximum and the sum of e^(score - maximum). A maximum of -inf means that nothing was added. */
struct LogSum {
  float maximum = -INFINITY, sum = 0;

  __device__ __forceinline__ void add(const LogSum &other) {
    const float largest = max_nan(maximum, other.maximum);
    if (largest == -INFINITY) return;
    sum = sum * expf(maximum - largest) + other.sum * expf(other.maximum - largest);
    maximum = largest;
  }
};

/* Grid: pages in x, kWarps a block; row (sequence and KV head) in y. mass gets the logarithms. q of the group lies in shared memory. */
template <typename T>
__global__ void __launch_bounds__(kThreads) sum_kernel(const __grid_constant__ MassLaunch launch) {
  extern __shared__ float q[];
  wait_for_previous();
  let_next_start();
  const PageMassParams &p = launch.params;
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t sequence = blockIdx.y / desc.num_kv_heads, head = blockIdx.y % desc.num_kv_heads;
  const int group = desc.num_query_heads / desc.num_kv_heads, d = desc.head_dim;
  const float *queries = p.q.row(sequence) + head * group * d;
  for (int i = threadIdx.x; i < group * d; i += kThreads) q[i] = queries[i];
  __syncthreads();
  const Range range = range_of(launch, sequence);
  const int32_t page = static_cast<int32_t>(blockIdx.x) * kWarps + static_cast<int32_t>(threadIdx.x / kWarp);
  if (page < range.first_page || page >= range.pages) return;
  const int32_t *table = p.sequences.page_table + sequence * p.sequences.table_stride;
  const int32_t physical = checked_page(launch.bad_index, table, sequence * p.sequences.table_stride, page, desc.num_pages);
  const Layout layout(desc);
  const T *keys = static_cast<const T *>(p.cache.keys) + layout.tokens(p.layer, head, physical);
  const int lane = threadIdx.x % kWarp, quarter = lane % kLanesAToken;
  for (int first_head = 0; first_head < group; first_head += kMostHeads) {
    const int heads = min(group - first_head, kMostHeads);
    LogSum sums[kMostHeads];
    for (int place = lane / kLanesAToken; place < desc.page_size; place += kTokens) {
      float dots[kMostHeads] = {};
      for (int dim = quarter * kNumbers; dim < d; dim += kLanesAToken * kNumbers) {
        const Pack<float, kNumbers> key = load_pack<kNumbers>(keys + layout.inside(sizeof(T), place, dim));
#pragma unroll
        for (int h = 0; h < kMostHeads; h++) {
          if (h >= heads) break;
          const float *query = q + (first_head + h) * d + dim;
#pragma unroll
          for (int i = 0; i < kNumbers; i++) dots[h] = fmaf(query[i], key.value[i], dots[h]);
        }
      }
      const int32_t position = page * desc.page_size + place;
      float scale = p.scale;
      if constexpr (kIsScaled<T>) scale *= p.cache.key_scale[layout.token(p.layer, head, physical) + place];
      const bool counts = position >= range.first_token && position < range.length;
#pragma unroll
      for (int h = 0; h < kMostHeads; h++) {
        if (h >= heads) break;
        dots[h] += __shfl_xor_sync(kAllLanes, dots[h], 1);
        dots[h] += __shfl_xor_sync(kAllLanes, dots[h], 2);
        if (counts) sums[h].add({dots[h] * scale, 1.f});
      }
    }
#pragma unroll
    for (int h = 0; h < kMostHeads; h++) {
      if (h >= heads) break;
#pragma unroll
      for (int distance = kLanesAToken; distance < kWarp; distance *= 2) {
        const LogSum other{__shfl_xor_sync(kAllLanes, sums[h].maximum, distance), __shfl_xor_sync(kAllLanes, sums[h].sum, distance)};
        sums[h].add(other);
      }
      if (lane == 0) {
        p.mass[(sequence * desc.num_query_heads + head * group + first_head + h) * p.sequences.max_pages + page] = sums[h].maximum +
                                                                                                                   logf(sums[h].sum);
      }
    }
  }
}

/* Turns the logarithms of a row into shares; pages before the window have none. */
__global__ void __launch_bounds__(kThreads) share_kernel(const __grid_constant__ MassLaunch launch) {
  __shared__ float shared[2][kWarps];
  wait_for_previous();
  let_next_start();
  const PageMassParams &p = launch.params;
  const Range range = range_of(launch, blockIdx.x / p.cache.desc.num_query_heads);
  float *row = p.mass + int64_t(blockIdx.x) * p.sequences.max_pages;
  LogSum total;
  for (int32_t i = range.first_page + threadIdx.x; i < range.pages; i += kThreads) total.add({row[i], 1.f});
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    total.add({__shfl_xor_sync(kAllLanes, total.maximum, distance), __shfl_xor_sync(kAllLanes, total.sum, distance)});
  }
  if (threadIdx.x % kWarp == 0) shared[0][threadIdx.x / kWarp] = total.maximum, shared[1][threadIdx.x / kWarp] = total.sum;
  __syncthreads();
  LogSum all;
  for (int warp = 0; warp < kWarps; warp++) all.add({shared[0][warp], shared[1][warp]});
  for (int32_t i = threadIdx.x; i < range.pages; i += kThreads) row[i] = i < range.first_page ? 0.f : expf(row[i] - all.maximum) / all.sum;
}

}  // namespace

void page_mass(Backend &backend, const PageMassParams &params) {
  const ps_cache_desc &desc = params.cache.desc;
  const MassLaunch launch_params{params, backend.bad_index};
  const dim3 grid(static_cast<unsigned>(ceil_div(params.sequences.max_pages, kWarps)),
                  static_cast<unsigned>(params.sequences.sequences * desc.num_kv_heads));
  const int64_t shared_bytes = desc.num_query_heads / desc.num_kv_heads * int64_t(desc.head_dim) * int64_t(sizeof(float));
  with_kv_type(desc, [&](auto type) {
    launch(backend, "Could not launch page_mass", sum_kernel<decltype(type)>, grid, dim3(kThreads), shared_bytes, launch_params);
  });
  launch(backend, "Could not launch the shares of page_mass", share_kernel,
         dim3(static_cast<unsigned>(params.sequences.sequences * desc.num_query_heads)), dim3(kThreads), 0, launch_params);
}

}  // namespace ps
