/* out = x * weight^T + bias.
 *
 * A few tokens (decode): every weight is read once, in place, and multiplied with all tokens: bound by the weights' bytes.
 * Many tokens (prefill): matmul_panels.h, or matmul_amx.h and matmul_bfmmla.h for bf16 weights. */
#pragma once

#include "matmul_panels.h"
#if defined(__AMX_BF16__)
#include "matmul_amx.h"
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include "matmul_bfmmla.h"
#endif

namespace ps {
namespace PS_ISA {

constexpr int64_t kFewTokens = 8;
constexpr int64_t kTaskBytes = 1 << 15;   /* weight bytes per task */
constexpr int64_t kRowPrefetchBytes = 2048; /* short rows end before the hardware prefetcher detects them */

/* 2 * kLanes weights as two vectors. A pair of bf16 becomes two floats by a shift and a mask, so bf16 yields its even numbers, then
 * its odd ones; arrange_pairs puts activations in the same order. */
template <typename W>
PS_INLINE void load_pair(const W *p, Vec &first, Vec &second) {
  first = load(p);
  second = load(p + kLanes);
}
PS_INLINE void load_pair(const bf16 *p, Vec &first, Vec &second) {
  VecBits bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  first = (Vec)(bits << 16);
  second = (Vec)(bits & 0xffff0000u);
}

static void arrange_pairs(const float *x, int64_t count, float *out) {
  for (int64_t k = 0; k + 2 * kLanes <= count; k += 2 * kLanes) {
    for (int i = 0; i < kLanes; i++) {
      out[k + i] = x[k + 2 * i];
      out[k + kLanes + i] = x[k + 2 * i + 1];
    }
  }
}

/* Outputs [n, n + Outputs) of Tokens tokens from t on. arranged: activations in load_pair's order, rows arranged_stride apart. */
template <int Outputs, int Tokens, typename W>
PS_INLINE void dot_block(const MatmulParams &p, const W *weight, const float *arranged, int64_t arranged_stride, int64_t n, int64_t t) {
  constexpr int kSums = Tokens == 1 ? 2 : 1; /* enough independent sums to hide the latency of an addition */
  Vec sum[Outputs][Tokens][kSums];
  PS_UNROLL
  for (int i = 0; i < Outputs; i++) {
    PS_UNROLL
    for (int j = 0; j < Tokens; j++) sum[i][j][0] = Vec{}, sum[i][j][kSums - 1] = Vec{};
  }
  const int64_t inputs = p.inputs, stride = p.weight.stride;
  const W *w = weight + n * stride;
  const float *x = arranged + t * arranged_stride;
  int64_t k = 0;
  for (; k + 2 * kLanes <= inputs; k += 2 * kLanes) {
    PS_UNROLL
    for (int i = 0; i < Outputs; i++) {
      Vec first, second;
      load_pair(w + i * stride + k, first, second);
      prefetch_ahead(w + i * stride + k, kRowPrefetchBytes);
      PS_UNROLL
      for (int j = 0; j < Tokens; j++) {
        sum[i][j][0] = fma(first, load(x + j * arranged_stride + k), sum[i][j][0]);
        sum[i][j][kSums - 1] = fma(second, load(x + j * arranged_stride + k + kLanes), sum[i][j][kSums - 1]);
      }
    }
  }
  PS_UNROLL
  for (int i = 0; i < Outputs; i++) {
    PS_UNROLL
    for (int j = 0; j < Tokens; j++) {
      float result = reduce_add(kSums == 2 ? sum[i][j][0] + sum[i][j][1] : sum[i][j][0]);
      for (int64_t tail = k; tail < inputs; tail++) result += p.x.row(t + j)[tail] * to_float(w[i * stride + tail]);
      p.out.row(t + j)[n + i] = result + bias_at(p.bias, n + i);
    }
  }
}

template <int Tokens, typename W>
static void dot_range(const MatmulParams &p, const W *weight, const float *arranged, int64_t arranged_stride, int64_t first, int64_t end, int64_t t) {
  constexpr int kOutputs = Tokens <= 2 ? 4 : Tokens <= 4 ? 2 : 1;
  int64_t n = first;
  for (; n + kOutputs <= end; n += kOutputs) dot_block<kOutputs, Tokens>(p, weight, arranged, arranged_stride, n, t);
  for (; n < end; n++) dot_block<1, Tokens>(p, weight, arranged, arranged_stride, n, t);
}

template <typename W>
static void matmul_few(ThreadPool &pool, const MatmulParams &p, const W *weight) {
  const float *arranged = p.x.data;
  int64_t stride = p.x.stride;
  if (p.weight.dtype == PS_BF16) {
    float *memory = static_cast<float *>(pool.shared_scratch(p.tokens * p.inputs * int64_t(sizeof(float))));
    for (int64_t t = 0; t < p.tokens; t++) arrange_pairs(p.x.row(t), p.inputs, memory + t * p.inputs);
    arranged = memory;
    stride = p.inputs;
  }
  const int64_t row_bytes = p.inputs * int64_t(sizeof(W));
  const int64_t grain = (kTaskBytes + row_bytes - 1) / row_bytes;
  parallel_ranges(pool, p.outputs, grain, [&](int64_t first, int64_t end) {
    int64_t t = 0;
    for (; t + 8 <= p.tokens; t += 8) dot_range<8>(p, weight, arranged, stride, first, end, t);
    for (; t + 4 <= p.tokens; t += 4) dot_range<4>(p, weight, arranged, stride, first, end, t);
    for (; t + 2 <= p.tokens; t += 2) dot_range<2>(p, weight, arranged, stride, first, end, t);
    for (; t < p.tokens; t++) dot_range<1>(p, weight, arranged, stride, first, end, t);
  });
}

/* Weight rows [n, n + columns) at inputs [k, k + depth) become panel [depth, kTileColumns]; missing columns are zero. */
template <typename W>
static void pack_panel(const MatmulParams &p, const W *weight, int64_t n, int64_t columns, int64_t k, int64_t depth, float *panel) {
  for (int64_t c = 0; c < columns; c++) {
    const W *row = weight + (n + c) * p.weight.stride + k;
    for (int64_t i = 0; i < depth; i++) panel[i * kTileColumns + c] = to_float(row[i]);
  }
  for (int64_t c = columns; c < kTileColumns; c++) { /* no row of the weights: not even a pointer to one */
    for (int64_t i = 0; i < depth; i++) panel[i * kTileColumns + c] = 0.f;
  }
}

template <typename W>
static void matmul_many(ThreadPool &pool, const MatmulParams &p, const W *weight) {
  multiply_panels(pool, p,
                  [&](int64_t n, int64_t columns, int64_t k, int64_t depth, float *panel) { pack_panel(p, weight, n, columns, k, depth, panel); });
}

static void matmul(ThreadPool &pool, const MatmulParams &p) {
#if defined(__AMX_BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
  if (p.weight.dtype == PS_BF16 && p.tokens > kFewTileTokens) {
    return multiply_bf16(pool, p,
                         [&](int64_t n, int64_t columns, int64_t k, int64_t depth, bf16 *panel) { pack_bf16(p, n, columns, k, depth, panel); });
  }
#endif
  with_dtype(p.weight.dtype, [&](auto type) {
    const auto *weight = static_cast<const decltype(type) *>(p.weight.data);
    if (p.tokens <= kFewTokens) matmul_few(pool, p, weight);
    else matmul_many(pool, p, weight);
  });
}

}  // namespace PS_ISA
}  // namespace ps
