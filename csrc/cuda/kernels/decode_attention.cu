/* Attention of one query per sequence over its pages, or over the selected ones.
 *
 * Bound by what it reads: 2 S d numbers per page and KV head. The query heads of a group share them. */
#include <algorithm>

#include "decode_attention_generic.cuh"
#include "decode_attention_mma.cuh"

namespace ps {
namespace {

constexpr int64_t kAlignmentBytes = 256;

int64_t arrivals_bytes(int64_t rows) { return ceil_div(rows * int64_t(sizeof(int32_t)), kAlignmentBytes) * kAlignmentBytes; }

int64_t most_rows(const ps_cache_desc &desc) { return int64_t(desc.max_sequences) * desc.num_kv_heads * row_blocks(desc); }

template <typename T>
void launch_generic(Backend &backend, const DecodeLaunch &params) {
  launch(backend, "Could not launch decode_attention", decode_generic_kernel<T>, dim3(params.rows * params.most_splits), dim3(kDecodeThreads),
         decode_generic_shared_bytes(params.params.cache.desc.head_dim), params);
}

template <typename T, int D>
void launch_mma(Backend &backend, const DecodeLaunch &params) {
  const int64_t shared_bytes = DecodeTile<D>::shared_bytes(backend.capability);
  if (shared_bytes + int64_t(sizeof(JoinShared)) > backend.shared_bytes) return launch_generic<T>(backend, params); /* heads of 256 on 8.6 and 8.9 */
  launch(backend, "Could not launch decode_attention", decode_mma_kernel<T, D>, dim3(params.rows * params.most_splits), dim3(kDecodeThreads),
         shared_bytes, params);
}

template <typename T>
void launch_16_bit(Backend &backend, const DecodeLaunch &params) {
  switch (params.params.cache.desc.head_dim) {
    case 64: return launch_mma<T, 64>(backend, params);
    case 96: return launch_mma<T, 96>(backend, params);
    case 128: return launch_mma<T, 128>(backend, params);
    case 256: return launch_mma<T, 256>(backend, params);
    default: return launch_generic<T>(backend, params);
  }
}

}  // namespace

int64_t cache_scratch_bytes(const ps_cache_desc &desc) {
  const int64_t tokens = desc.max_pages_per_sequence * desc.page_size, all_rows = most_rows(desc);
  int64_t parts = 0; /* of the batch that has most */
  for (int64_t rows = all_rows / desc.max_sequences; rows <= all_rows; rows += all_rows / desc.max_sequences) {
    parts = std::max(parts, rows * splits_of(tokens, rows));
  }
  return arrivals_bytes(all_rows) + parts * kRowHeads * (desc.head_dim + kPartialExtra) * int64_t(sizeof(float));
}

DecodeLaunch describe_decode(Backend &backend, const DecodeAttentionParams &params) {
  const ps_cache_desc &desc = params.cache.desc;
  DecodeLaunch launch{};
  launch.params = params;
  launch.bad_index = backend.bad_index;
  launch.rows = static_cast<int32_t>(params.sequences.sequences * desc.num_kv_heads * row_blocks(desc));
  const int64_t pages = params.selected ? params.k : params.sequences.max_pages;
  launch.most_splits = static_cast<int32_t>(splits_of(pages * desc.page_size, launch.rows));
  launch.arrivals = static_cast<int32_t *>(params.cache.scratch);
  launch.partials = reinterpret_cast<float *>(static_cast<char *>(params.cache.scratch) + arrivals_bytes(most_rows(desc)));
  return launch;
}

void decode_attention(Backend &backend, const DecodeAttentionParams &params) {
  const DecodeLaunch launch = describe_decode(backend, params);
  const ps_cache_desc &desc = params.cache.desc;
  if (desc.dtype == PS_F32) launch_generic<float>(backend, launch);
  else if (desc.dtype == PS_F16) launch_16_bit<f16>(backend, launch);
  else launch_16_bit<bf16>(backend, launch);
}

}  // namespace ps
