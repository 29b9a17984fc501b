/* out[t] = table[ids[t]]. Bound by width * (bytes of a number + 4) bytes per token. */
#include "dequantize.cuh"
#include "matmul_quantized.h"
#include "pack.cuh"

namespace ps {
namespace {

template <typename T, int N>
__global__ void __launch_bounds__(kRowThreads) embedding_kernel(EmbeddingParams p, BadIndex *bad) {
  wait_for_previous();
  let_next_start();
  const Place place = place_of_thread<N>(p.width);
  if (place.column >= p.width) return;
  const int64_t id = checked_index(bad, kIds, place.row, p.ids[place.row], p.vocabulary);
  const T *row = static_cast<const T *>(p.table.data) + id * p.table.stride;
  store_pack<N>(p.out.row(place.row) + place.column, load_pack<N>(row + place.column));
}

/* A thread a number of a table in blocks. */
template <typename F>
__global__ void __launch_bounds__(kRowThreads) quantized_embedding_kernel(EmbeddingParams p, BlockRows rows, BadIndex *bad) {
  wait_for_previous();
  let_next_start();
  const Place place = place_of_thread<1>(p.width);
  if (place.column >= p.width) return;
  const int64_t id = checked_index(bad, kIds, place.row, p.ids[place.row], p.vocabulary);
  p.out.row(place.row)[place.column] = dequantize<F>(rows, id, place.column);
}

}  // namespace

void embedding(Backend &backend, const EmbeddingParams &params) {
  if (is_block_format(params.table.dtype)) {
    const BlockRows rows(params.table, params.vocabulary, params.width);
    return with_format(params.table.dtype, [&](auto format) {
      using F = decltype(format);
      launch(backend, "Could not launch embedding", quantized_embedding_kernel<F>, chunk_grid(params.tokens, params.width, 1), kRowThreads, 0, params,
             rows, backend.bad_index);
    });
  }
  with_dtype(params.table.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int kNumbers = kPackBytes / sizeof(T);
    const bool fit = params.width % kNumbers == 0 && packs(params.table, kNumbers) && packs(params.out, kNumbers);
    with_pack<kNumbers>(fit, [&](auto n) {
      launch(backend, "Could not launch embedding", embedding_kernel<T, n()>, chunk_grid(params.tokens, params.width, n()), kRowThreads, 0, params,
             backend.bad_index);
    });
  });
}

}  // namespace ps
