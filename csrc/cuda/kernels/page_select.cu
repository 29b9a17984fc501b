/* The k best pages of each row, ascending: forced pages, then by score, equal scores to the lower page. One block per row reads P
 * scores, once up to 16,384 pages. Few rows of more than 8,192 pages get a cluster of 8 blocks each. */
#include "cluster_select.cuh"

namespace ps {
namespace {

__global__ void __launch_bounds__(1024) select_kernel(const __grid_constant__ PageSelectParams p, BadIndex *bad_index) {
  __shared__ SelectShared shared;
  let_next_start();
  wait_for_previous();
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t row = blockIdx.x;
  const int32_t length = checked_length(bad_index, p.sequences, row / desc.num_kv_heads, desc.page_size), k = static_cast<int32_t>(p.k);
  const int32_t pages = (length + desc.page_size - 1) / desc.page_size;
  int32_t *out = p.selected + row * k;
  count_selection(p, pages, row == 0);
  if (pages <= k) return take_all(pages, out, p.counts + row);

  const Forced forced = forced_pages(k, p.sink_pages, p.recent_pages);
  const float *scores = p.scores + row * p.sequences.max_pages + forced.first;
  const int32_t count = pages - forced.first - forced.last;
  write_forced(forced, pages, k, out);
  if (threadIdx.x == 0) p.counts[row] = k;
  if (forced.best == 0) return;
  auto key = [&](int32_t i) { return ordered_key(scores[i]); };
  Keys<kMostItems, decltype(key)> keys(key, count);
  const Cut cut = find_cut(keys, forced.best, shared);
  write_taken(keys, cut, [&](int32_t i) { return forced.first + i; }, out + forced.first, shared);
}

constexpr int64_t kLongRow = 8192; /* pages */

__global__ void __launch_bounds__(1024) select_cluster_kernel(const __grid_constant__ PageSelectParams p, BadIndex *bad_index) {
  __shared__ SelectShared shared;
  __shared__ ClusterShared cluster;
  let_next_start();
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t row = blockIdx.x / kMostBlocks;
  const int32_t length = checked_length(bad_index, p.sequences, row / desc.num_kv_heads, desc.page_size), k = static_cast<int32_t>(p.k);
  const int32_t pages = (length + desc.page_size - 1) / desc.page_size, rank = static_cast<int32_t>(cluster_rank());
  int32_t *out = p.selected + row * k;
  wait_for_previous();
  if (rank == 0) count_selection(p, pages, row == 0);
  if (pages <= k) { /* in all blocks of the cluster */
    if (rank == 0) take_all(pages, out, p.counts + row);
    return;
  }

  const Forced forced = forced_pages(k, p.sink_pages, p.recent_pages);
  if (rank == 0) write_forced(forced, pages, k, out);
  if (rank == 0 && threadIdx.x == 0) p.counts[row] = k;
  if (forced.best == 0) return;
  const int32_t count = pages - forced.first - forced.last, share = (count + kMostBlocks - 1) / kMostBlocks;
  const int32_t begin = min(rank * share, count), first = forced.first + begin;
  const float *scores = p.scores + row * p.sequences.max_pages + first;
  auto key = [&](int32_t i) { return ordered_key(scores[i]); };
  Keys<kMostItems, decltype(key)> keys(key, min(share, count - begin));
  select_in_cluster(keys, forced.best, kMostBlocks, shared, cluster, [&](int32_t place, int32_t i) { out[forced.first + place] = first + i; });
  cluster_sync(); /* nobody's memory goes away while others read it */
}

/* Whether the rows were launched as clusters. */
bool select_as_clusters(Backend &backend, const PageSelectParams &params, int64_t rows) {
  const int64_t pages = params.sequences.max_pages;
  if (backend.capability < 90 || pages <= kLongRow || rows * kMostBlocks > backend.multiprocessors) return false;
  const dim3 block(pages <= 4 * kLongRow ? 256 : pages <= 8 * kLongRow ? 512 : 1024);
  return launch_clusters(backend, "Could not launch page_select", select_cluster_kernel, rows, kMostBlocks, block, 0, params, backend.bad_index);
}

}  // namespace

void page_select(Backend &backend, const PageSelectParams &params) {
  const int64_t rows = params.sequences.sequences * params.cache.desc.num_kv_heads, pages = params.sequences.max_pages;
  if (select_as_clusters(backend, params, rows)) return;
  const dim3 block(pages <= 2048 ? 128 : pages <= 4096 ? 256 : pages <= 8192 ? 512 : 1024);
  launch(backend, "Could not launch page_select", select_kernel, dim3(static_cast<unsigned>(rows)), block, 0, params, backend.bad_index);
}

}  // namespace ps
