/* Rows of weights in blocks, from main memory in GGUF's layout to where products read them (quantized.cuh). Bound by the copy to the GPU. */
#include <algorithm>

#include "dequantize.cuh"

namespace ps {
namespace {

constexpr int64_t kPieceBytes = int64_t(32) << 20; /* of source that is on the GPU at once */

/* A thread a block of a row. source [count, blocks] from row `first` on. */
template <typename F>
__global__ void __launch_bounds__(kRowThreads) arrange_kernel(const uint8_t *source, uint8_t *weights, BlockRows rows, int64_t first) {
  const Place place = place_of_thread<1>(rows.inputs / F::kInputs);
  if (place.column >= rows.inputs / F::kInputs) return;
  const int64_t row = first + place.row;
  const Bytes block{source + (place.row * (rows.inputs / F::kInputs) + place.column) * F::kBytes};
  if (rows.tiled(row)) {
    arrange_block<F>(block, weights + (rows.region<F>(row, place.column) - rows.data), static_cast<int>(row % kTileRows));
    return;
  }
  uint8_t *target = weights + (rows.plain<F>(row, place.column) - rows.data);
  for (int i = 0; i < F::kBytes; i++) target[i] = static_cast<uint8_t>(block[i]);
}

}  // namespace

void weight_write_blocks(Backend &backend, const WeightWriteParams &params) {
  const BlockRows rows(params.weight, params.rows, params.inputs);
  with_format(params.weight.dtype, [&](auto format) {
    using F = decltype(format);
    const int64_t row_bytes = params.inputs / F::kInputs * F::kBytes, step = std::max<int64_t>(1, kPieceBytes / row_bytes);
    for (int64_t done = 0; done < params.count; done += step) {
      const int64_t count = std::min(step, params.count - done);
      uint8_t *piece = static_cast<uint8_t *>(scratch(backend, count * row_bytes));
      memory_write(backend, piece, static_cast<const uint8_t *>(params.source) + done * row_bytes, count * row_bytes);
      launch(backend, Start::kAfterPrevious, "Could not launch the arrangement of weights", arrange_kernel<F>,
             chunk_grid(count, params.inputs / F::kInputs, 1), kRowThreads, 0, static_cast<const uint8_t *>(piece),
             static_cast<uint8_t *>(const_cast<void *>(params.weight.data)), rows, params.first_row + done);
    }
  });
  backend_wait(backend); /* products read weights before they wait for the kernel before them */
}

}  // namespace ps
