/* Rows that the operation before a product writes rounded to bf16 as well, in scratch memory: at its start, where the product would round its x, or
 * behind the x of a product whose gates are multiplied. This spares the product the launch that rounds. The f32 rows are written all the same, so
 * nobody else sees a difference.
 *
 * Whether a product follows is a guess: the last one of many tokens rounded its x. Where it is wrong, 2 bytes per number were written in vain. */
#pragma once

#include "matvec.cuh"
#include "pack.cuh"

namespace ps {

constexpr int64_t kBatchTokens = 128; /* decode steps; above, x is worth two parts: 9 % of a layer for twice the rows */
constexpr int64_t kStackedTokens = 256;

/* Whether a product of more than kFewTokens takes x in two parts, so that nobody can round it for the product. */
constexpr bool is_stacked(int64_t tokens) { return tokens > kBatchTokens && tokens <= kStackedTokens; }

/* Numbers from one row of rounded x to the next. Aligned rows are what fast products take. */
inline int64_t rounded_stride(int64_t width) { return ceil_div(width, 8) * 8; }

/* Where a kernel leaves its rows rounded; nowhere if x is nullptr. */
struct RoundedCopy {
  bf16 *x; /* [tokens, stride] */
  int64_t stride;

  template <int N>
  __device__ __forceinline__ void store(int64_t row, int64_t column, const Pack<float, N> &numbers) const {
    if (x == nullptr) return;
    Pack<bf16, N> rounded;
#pragma unroll
    for (int i = 0; i < N; i++) store_number(&rounded.value[i], numbers.value[i]);
    *reinterpret_cast<Pack<bf16, N> *>(x + row * stride + column) = rounded;
  }
};

/* The place for rows [tokens, width] of the operation that is about to be launched, if the product behind it would round them. */
inline RoundedCopy place_copy(Backend &backend, int64_t tokens, int64_t width) {
  if (!backend.rounds_rows || tokens <= kFewTokens || is_stacked(tokens)) return {};
  const int64_t stride = rounded_stride(width);
  return {static_cast<bf16 *>(scratch(backend, tokens * stride * int64_t(sizeof(bf16)))), stride};
}

/* Notes that the launch just made wrote these rows, and the copy. */
inline void note_copy(Backend &backend, const RoundedCopy &copy, const Rows<float> &rows, int64_t tokens, int64_t width) {
  if (copy.x != nullptr) backend.rounded = {rows.data, rows.stride, tokens, width, copy.x};
}

/* Whether what is noted is about the x of a product: RoundedRows or NormedRows. */
template <typename Noted>
bool is_about_x(const Noted &noted, const MatmulParams &p) {
  return noted.source == p.x.data && noted.stride == p.x.stride && noted.tokens == p.tokens && noted.width == p.inputs;
}

/* Where the x of a product already lies rounded; nullptr if nowhere. */
inline void *copy_of(const Backend &backend, const MatmulParams &p) { return is_about_x(backend.rounded, p) ? backend.rounded.place : nullptr; }

}  // namespace ps
