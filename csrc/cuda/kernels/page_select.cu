/* The k best pages of each row, ascending: forced pages, then by score, equal scores to the lower page. One block per row; reads P
 * scores, once up to 16,384 pages. */
#include "select.cuh"

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

}  // namespace

void page_select(Backend &backend, const PageSelectParams &params) {
  const int64_t rows = params.sequences.sequences * params.cache.desc.num_kv_heads, pages = params.sequences.max_pages;
  const dim3 block(pages <= 2048 ? 128 : pages <= 4096 ? 256 : pages <= 8192 ? 512 : 1024);
  launch(backend, "Could not launch page_select", select_kernel, dim3(static_cast<unsigned>(rows)), block, 0, params, backend.bad_index);
}

}  // namespace ps
