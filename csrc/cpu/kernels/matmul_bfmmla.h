/* Products of many tokens with the bf16 instruction of arm64 (BFMMLA), which multiplies two rows of four numbers with two columns: x and the
 * weights are rounded to bf16, sums are f32. Products of fewer tokens keep x in f32.
 *
 * x is rounded once for all threads. A task takes up to kSliceTokens tokens and kTaskPanels panels of 16 outputs. A slab of inputs at a time,
 * it writes their weights in the order of the instruction and multiplies them with all its tokens. */
#pragma once

#include "microkernel.h"

namespace ps {
namespace PS_ISA {

constexpr int64_t kFewTileTokens = 256; /* up to here, products keep x in f32 */
constexpr int64_t kSliceTokens = 512;
constexpr int64_t kTaskPanels = 2;
constexpr int64_t kSlabInputs = 512; /* a panel takes 16 KB */
constexpr int kQuad = 4;             /* inputs of an instruction */
constexpr int kBlockSide = 8;        /* tokens and outputs of a block, whose sums stay in registers */
constexpr int kBlockPairs = kBlockSide / 2;
constexpr int64_t kBlockStep = kBlockSide * kQuad;     /* numbers of a block for four inputs: [4 pairs, 2, 4] */
constexpr int64_t kPanelStep = kTileColumns * kQuad;   /* the same of a panel: [8 pairs, 2, 4] */
constexpr int64_t kStepNumbers = kTileColumns * 32;    /* of a panel for 32 inputs */
static_assert(kTileColumns == 2 * kBlockSide, "A panel has two blocks of outputs");

PS_INLINE void store_four(bf16 *out, float32x4_t numbers) { vst1_bf16(reinterpret_cast<bfloat16_t *>(out), vcvt_bf16_f32(numbers)); }
PS_INLINE bfloat16x8_t load_pair_of_rows(const bf16 *p) { return vld1q_bf16(reinterpret_cast<const bfloat16_t *>(p)); }

/* Tokens [8 index, 8 index + 8) of x: [inputs / 4, 4 pairs of tokens, 2, 4], with zeros for missing tokens and inputs. */
static void round_block(const MatmulParams &p, int64_t index, bf16 *out) {
  for (int64_t row = 0; row < kBlockSide; row++) {
    const int64_t token = index * kBlockSide + row;
    bf16 *target = out + row * kQuad;
    for (int64_t k = 0; k < p.inputs; k += kQuad, target += kBlockStep) {
      if (token < p.tokens && p.inputs - k >= kQuad) {
        store_four(target, vld1q_f32(p.x.row(token) + k));
        continue;
      }
      float four[kQuad] = {};
      for (int64_t i = 0; token < p.tokens && i < p.inputs - k; i++) four[i] = p.x.row(token)[k + i];
      store_four(target, vld1q_f32(four));
    }
  }
}

/* Weight rows [n, n + columns) at inputs [k, k + depth) as a panel [depth / 4, 8 pairs of rows, 2, 4], with zeros for missing ones. */
static void pack_bf16(const MatmulParams &p, int64_t n, int64_t columns, int64_t k, int64_t depth, bf16 *panel) {
  const bf16 *weight = static_cast<const bf16 *>(p.weight.data);
  for (int64_t c = 0; c < kTileColumns; c++) {
    bf16 *target = panel + c * kQuad;
    for (int64_t i = 0; i < depth; i += kQuad, target += kPanelStep) {
      bf16 four[kQuad] = {};
      const bf16 *source = weight + (c < columns ? (n + c) * p.weight.stride + k + i : 0);
      if (c < columns && depth - i >= kQuad) __builtin_memcpy(four, source, sizeof four);
      for (int64_t j = 0; c < columns && depth - i < kQuad && j < depth - i; j++) four[j] = source[j];
      __builtin_memcpy(target, four, sizeof four);
    }
  }
}

/* The same from f32 numbers [depth, 16], as a panel of matmul_panels.h, where depth is a multiple of 4. */
static void narrow_panel(const float *numbers, int64_t depth, bf16 *panel) {
  for (int64_t i = 0; i < depth; i += kQuad, numbers += kQuad * kTileColumns, panel += kPanelStep) {
    for (int c = 0; c < kTileColumns; c += kQuad) { /* four rows of four columns, transposed */
      float32x4_t row[kQuad];
      PS_UNROLL
      for (int j = 0; j < kQuad; j++) row[j] = vld1q_f32(numbers + j * kTileColumns + c);
      const float32x4x2_t first = vzipq_f32(row[0], row[2]), second = vzipq_f32(row[1], row[3]);
      const float32x4x2_t low = vzipq_f32(first.val[0], second.val[0]), high = vzipq_f32(first.val[1], second.val[1]);
      store_four(panel + c * kQuad, low.val[0]);
      store_four(panel + (c + 1) * kQuad, low.val[1]);
      store_four(panel + (c + 2) * kQuad, high.val[0]);
      store_four(panel + (c + 3) * kQuad, high.val[1]);
    }
  }
}

/* out [8, 8] = a * b over `steps` steps of four inputs; b is one half of a panel. */
static void multiply_block(int64_t steps, const bf16 *a, const bf16 *b, float *out) {
  float32x4_t sum[kBlockPairs][kBlockPairs]; /* two tokens, two outputs */
  PS_UNROLL
  for (int i = 0; i < kBlockPairs; i++) {
    PS_UNROLL
    for (int j = 0; j < kBlockPairs; j++) sum[i][j] = vdupq_n_f32(0);
  }
  for (int64_t step = 0; step < steps; step++, a += kBlockStep, b += kPanelStep) {
    bfloat16x8_t x[kBlockPairs], w[kBlockPairs];
    PS_UNROLL
    for (int i = 0; i < kBlockPairs; i++) x[i] = load_pair_of_rows(a + 8 * i), w[i] = load_pair_of_rows(b + 8 * i);
    PS_UNROLL
    for (int i = 0; i < kBlockPairs; i++) {
      PS_UNROLL
      for (int j = 0; j < kBlockPairs; j++) sum[i][j] = vbfmmlaq_f32(sum[i][j], x[i], w[j]);
    }
  }
  PS_UNROLL
  for (int i = 0; i < kBlockPairs; i++) {
    PS_UNROLL
    for (int j = 0; j < kBlockPairs; j++) {
      vst1_f32(out + 2 * i * kBlockSide + 2 * j, vget_low_f32(sum[i][j]));
      vst1_f32(out + (2 * i + 1) * kBlockSide + 2 * j, vget_high_f32(sum[i][j]));
    }
  }
}

/* Adds a block to the outputs that exist; the first slab of inputs begins with the bias. */
static void add_block(const MatmulParams &p, const float *block, int64_t token, int64_t n, bool first) {
  const int64_t rows = p.tokens - token < kBlockSide ? p.tokens - token : kBlockSide;
  const int64_t columns = p.outputs - n < kBlockSide ? p.outputs - n : kBlockSide;
  for (int64_t r = 0; r < rows; r++) {
    float *out = p.out.row(token + r) + n;
    for (int64_t c = 0; c < columns; c++) out[c] = (first ? bias_at(p.bias, n + c) : out[c]) + block[r * kBlockSide + c];
  }
}

/* Outputs [first, end) of the tokens of blocks [first_block, end_block). x: all blocks of round_block, panels: a thread's memory. */
template <typename Pack>
static void multiply_slabs(const MatmulParams &p, const bf16 *x, const Pack &pack, int64_t first, int64_t end, int64_t first_block, int64_t end_block,
                           bf16 *panels) {
  constexpr int64_t kPanelNumbers = kSlabInputs * kTileColumns;
  const int64_t steps = (p.inputs + kQuad - 1) / kQuad;
  float sums[kBlockSide * kBlockSide];
  for (int64_t k = 0; k < p.inputs; k += kSlabInputs) {
    const int64_t depth = p.inputs - k < kSlabInputs ? p.inputs - k : kSlabInputs, slab_steps = (depth + kQuad - 1) / kQuad;
    for (int64_t n = first; n < end; n += kTileColumns) {
      const int64_t columns = end - n < kTileColumns ? end - n : kTileColumns;
      pack(n, columns, k, depth, panels + (n - first) / kTileColumns * kPanelNumbers);
    }
    for (int64_t block = first_block; block < end_block; block++) {
      const bf16 *own = x + (block * steps + k / kQuad) * kBlockStep;
      for (int64_t n = first; n < end; n += kBlockSide) {
        const int64_t column = n - first, half = column % kTileColumns * kQuad;
        multiply_block(slab_steps, own, panels + column / kTileColumns * kPanelNumbers + half, sums);
        add_block(p, sums, block * kBlockSide, n, k == 0);
      }
    }
  }
}

/* pack(n, columns, k, depth, panel) writes a panel as pack_bf16 does. */
template <typename Pack>
static void multiply_bf16(ThreadPool &pool, const MatmulParams &p, const Pack &pack) {
  const int64_t blocks = (p.tokens + kBlockSide - 1) / kBlockSide, block_numbers = (p.inputs + kQuad - 1) / kQuad * kBlockStep;
  bf16 *x = static_cast<bf16 *>(pool.shared_scratch(blocks * block_numbers * int64_t(sizeof(bf16))));
  pool.parallel_for(blocks, [&](int64_t block, int) { round_block(p, block, x + block * block_numbers); });

  constexpr int64_t kTaskOutputs = kTaskPanels * kTileColumns, kSliceBlocks = kSliceTokens / kBlockSide;
  const int64_t shares = (p.outputs + kTaskOutputs - 1) / kTaskOutputs, slices = (blocks + kSliceBlocks - 1) / kSliceBlocks;
  pool.reserve_scratch(kTaskOutputs * kSlabInputs * int64_t(sizeof(bf16)));
  pool.parallel_for(shares * slices, [&](int64_t task, int thread) {
    const int64_t first = task % shares * kTaskOutputs, end = first + kTaskOutputs;
    const int64_t first_block = task / shares * kSliceBlocks, end_block = first_block + kSliceBlocks;
    multiply_slabs(p, x, pack, first, end < p.outputs ? end : p.outputs, first_block, end_block < blocks ? end_block : blocks,
                   static_cast<bf16 *>(pool.scratch(thread)));
  });
}

}  // namespace PS_ISA
}  // namespace ps
