/* Attention of one query per sequence over its pages, or over the selected ones.
 *
 * Bound by what it reads: 2 S d numbers per page and KV head. The query heads of a group share them. */
#include <algorithm>

#include "decode_attention_generic.cuh"
#include "decode_attention_mma.cuh"
#include "prefill_attention_kernels.cuh"

namespace ps {
namespace {

constexpr int64_t kAlignmentBytes = 256;
constexpr int64_t kDecodeStaticBytes = 16; /* of finish_row */

int64_t arrivals_bytes(int64_t rows) { return ceil_div(rows * int64_t(sizeof(int32_t)), kAlignmentBytes) * kAlignmentBytes; }

int64_t most_rows(const ps_cache_desc &desc) { return int64_t(desc.max_sequences) * desc.num_kv_heads * row_blocks(desc); }

template <typename T>
void launch_generic(Backend &backend, const DecodeLaunch &params) {
  launch(backend, "Could not launch decode_attention", decode_generic_kernel<T>, dim3(params.rows * params.most_splits), dim3(kDecodeThreads),
         decode_generic_shared_bytes(params.params.cache.desc.head_dim), params);
}

template <typename Kv, int D, int Warps, int MostStages = 4>
bool launch_mma(Backend &backend, const DecodeLaunch &params) {
  const int64_t shared_bytes = DecodeTile<Kv, D, Warps, MostStages>::shared_bytes(backend.capability);
  if (shared_bytes + kDecodeStaticBytes > backend.shared_bytes) return false;
  if (params.ready) leave_no_cache("Could not launch decode_attention", decode_mma_kernel<Kv, D, Warps, MostStages>);
  launch(backend, "Could not launch decode_attention", decode_mma_kernel<Kv, D, Warps, MostStages>, dim3(params.rows * params.most_splits),
         dim3(Warps * kWarp), shared_bytes, params);
  return true;
}

template <typename Kv, int D>
void launch_mma(Backend &backend, const DecodeLaunch &params) {
  if (params.rows * params.most_splits <= kFewBlocks && launch_mma<Kv, D, kFewBlocksWarps>(backend, params)) return;
  if constexpr (D == 96 || D == 128) { /* three blocks share a multiprocessor then, instead of two */
    const bool many = params.params.selected && params.rows > 2 * backend.multiprocessors;
    if (many && launch_mma<Kv, D, kDecodeWarps, kShortRing>(backend, params)) return;
  }
  if (launch_mma<Kv, D, kDecodeWarps>(backend, params)) return;
  launch_generic<Kv>(backend, params); /* heads of 256 on 8.6 and 8.9 */
}

template <typename Kv>
void launch_head_dim(Backend &backend, const DecodeLaunch &params) {
  if constexpr (!std::is_same<Kv, float>::value) {
    switch (params.params.cache.desc.head_dim) {
      case 64: return launch_mma<Kv, 64>(backend, params);
      case 96:
        if constexpr (!kIsScaled<Kv>) return launch_mma<Kv, 96>(backend, params);
        break;
      case 128: return launch_mma<Kv, 128>(backend, params);
      case 256: return launch_mma<Kv, 256>(backend, params);
      default: break;
    }
  }
  launch_generic<Kv>(backend, params);
}

}  // namespace

int64_t cache_scratch_bytes(const ps_cache_desc &desc) {
  const int64_t tokens = desc.max_pages_per_sequence * desc.page_size, all_rows = most_rows(desc);
  int64_t parts = 0; /* of the batch that has most */
  for (int64_t rows = all_rows / desc.max_sequences; rows <= all_rows; rows += all_rows / desc.max_sequences) {
    parts = std::max(parts, rows * ceil_div(splits_of(tokens, rows), kClusterSplits) * kClusterSplits);
  }
  const int64_t partials = parts * kRowHeads * (desc.head_dim + kPartialExtra) * int64_t(sizeof(float));
  return prefill_scratch_bytes(desc) + 2 * arrivals_bytes(all_rows) + partials;
}

DecodeLaunch describe_decode(Backend &backend, const DecodeAttentionParams &params) {
  const ps_cache_desc &desc = params.cache.desc;
  DecodeLaunch launch{};
  launch.params = params;
  launch.bad_index = backend.bad_index;
  launch.rows = static_cast<int32_t>(params.sequences.sequences * desc.num_kv_heads * row_blocks(desc));
  const int64_t pages = params.selected ? params.k : params.sequences.max_pages;
  launch.most_splits = static_cast<int32_t>(splits_of(pages * desc.page_size, launch.rows));
  char *scratch = static_cast<char *>(params.cache.scratch) + prefill_scratch_bytes(desc);
  launch.arrivals = reinterpret_cast<int32_t *>(scratch);
  launch.partials = reinterpret_cast<float *>(scratch + 2 * arrivals_bytes(most_rows(desc)));
  return launch;
}

RowFlags describe_flags(const DecodeLaunch &launch) {
  const ps_cache_desc &desc = launch.params.cache.desc;
  char *arrivals = reinterpret_cast<char *>(launch.arrivals);
  return {reinterpret_cast<int32_t *>(arrivals + arrivals_bytes(most_rows(desc))), launch.most_splits * static_cast<int32_t>(row_blocks(desc))};
}

void decode_attention(Backend &backend, DecodeLaunch launch) {
  const DecodeAttentionParams &p = launch.params;
  const int64_t width = int64_t(p.cache.desc.num_query_heads) * p.cache.desc.head_dim;
  launch.rounded = place_copy(backend, p.sequences.sequences, width);
  with_kv_type(p.cache.desc, [&](auto kv) { launch_head_dim<decltype(kv)>(backend, launch); });
  note_copy(backend, launch.rounded, p.out, p.sequences.sequences, width);
}

void decode_attention(Backend &backend, const DecodeAttentionParams &params) { decode_attention(backend, describe_decode(backend, params)); }

}  // namespace ps
