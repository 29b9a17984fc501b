/* The k best pages of each row, ascending: forced pages, then by score, equal scores to the lower page. One block a row; reads P
 * scores, from shared memory after the first time where they fit. */
#include "select.cuh"

namespace ps {
namespace {

constexpr int64_t kMostKeptPages = 24 * 1024; /* 96 KiB of keys */

template <bool Kept>
__global__ void __launch_bounds__(1024) select_kernel(const __grid_constant__ PageSelectParams p, BadIndex *bad_index) {
  extern __shared__ uint32_t kept[];
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
  if (Kept) {
    for (int32_t i = threadIdx.x; i < count; i += blockDim.x) kept[i] = ordered_key(scores[i]);
    __syncthreads();
  }
  auto key = [&](int32_t i) { return Kept ? kept[i] : ordered_key(scores[i]); };
  const Cut cut = find_cut(key, count, forced.best, 0, shared);
  write_taken(key, count, cut, [&](int32_t i) { return forced.first + i; }, out + forced.first, shared);
}

}  // namespace

void page_select(Backend &backend, const PageSelectParams &params) {
  const int64_t rows = params.sequences.sequences * params.cache.desc.num_kv_heads, pages = params.sequences.max_pages;
  const bool kept = pages <= kMostKeptPages;
  const dim3 block(pages <= 1024 ? 128 : pages <= 8192 ? 256 : 1024);
  launch(backend, "Could not launch page_select", kept ? select_kernel<true> : select_kernel<false>, dim3(static_cast<unsigned>(rows)), block,
         kept ? pages * int64_t(sizeof(uint32_t)) : 0, params, backend.bad_index);
}

}  // namespace ps
