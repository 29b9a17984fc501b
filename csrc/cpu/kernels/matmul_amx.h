/* Products of many tokens on AMX: weights are rounded to bf16, sums are f32. x goes in as two parts of bf16 for up to kTwoPartTokens tokens,
 * whose products are bound by the weights more than by arithmetic, and rounded to bf16 for more.
 *
 * x is rounded once for all threads. A task takes up to kSliceTokens tokens and kMostPanels panels of 32 outputs. A slab of inputs at a
 * time, it writes their weights in the order of bf16_tiles.h and multiplies each panel, which then is in the first cache, with all its
 * tokens; x and the sums are in the second. */
#pragma once

#include "bf16_tiles.h"

namespace ps {
namespace PS_ISA {

constexpr int64_t kFewTileTokens = 16; /* up to here, products keep x in f32: they are bound by the weights' bytes */
constexpr int64_t kTwoPartTokens = 256;
constexpr int64_t kMostSlabSteps = 10; /* of 32 inputs: a panel takes 20 KB */
constexpr int64_t kSliceTokens = 512;
constexpr int64_t kMostPanels = 8;
constexpr int64_t kBlockNumbers = kBlockSide * kBlockSide;

PS_INLINE int row_tiles_from(int64_t token, int64_t tokens) { return tokens - token > kTileSide ? 2 : 1; }

/* x in steps: [slabs, blocks of 32 tokens, parts, steps of the slab]. The last block has one tile per step if that holds its tokens. */
struct RoundedTokens {
  bf16 *data;
  int64_t blocks, parts, steps, slabs, most_steps; /* of a slab */

  RoundedTokens(int64_t tokens, int64_t inputs)
      : data(nullptr),
        blocks((tokens + kBlockSide - 1) / kBlockSide),
        parts(tokens <= kTwoPartTokens ? 2 : 1),
        steps((inputs + kStepInputs - 1) / kStepInputs),
        slabs((steps + kMostSlabSteps - 1) / kMostSlabSteps),
        most_steps((steps + slabs - 1) / slabs) {}

  int64_t bytes() const { return blocks * parts * steps * kStepNumbers * int64_t(sizeof(bf16)); }
  int64_t first_step(int64_t slab) const { return slab * most_steps; }
  int64_t slab_steps(int64_t slab) const { return slab + 1 < slabs ? most_steps : steps - first_step(slab); }
  bf16 *block(int64_t slab, int64_t index) const { return data + (first_step(slab) * blocks + slab_steps(slab) * index) * parts * kStepNumbers; }
};

static void round_block(const MatmulParams &p, int64_t index, const RoundedTokens &x) {
  const int64_t token = index * kBlockSide;
  const int rows = row_tiles_from(token, p.tokens) * kTileSide;
  for (int64_t slab = 0; slab < x.slabs; slab++) {
    bf16 *out = x.block(slab, index);
    const int64_t part_numbers = x.slab_steps(slab) * rows * kStepInputs;
    for (int64_t step = 0; step < x.slab_steps(slab); step++) {
      const int64_t k = (x.first_step(slab) + step) * kStepInputs;
      for (int row = 0; row < rows; row++, out += kStepInputs) {
        const bool present = token + row < p.tokens;
        Vec first, second;
        load_row(p.x.row(present ? token + row : token) + k, present ? p.inputs - k : 0, &first, &second);
        const __m512i rounded = narrow(first, second);
        _mm512_storeu_si512(out, rounded);
        if (x.parts == 2) _mm512_storeu_si512(out + part_numbers, narrow_rest(first, second, rounded));
      }
    }
  }
}

/* Writes the sums [32, 32] of a block, plus the bias, to outputs [n, n + columns). */
static void write_block(const MatmulParams &p, const float *sums, int64_t token, int64_t n, int64_t columns) {
  const int64_t rows = p.tokens - token < kBlockSide ? p.tokens - token : kBlockSide;
  if (columns == kBlockSide && p.bias.data == nullptr) {
    for (int64_t r = 0; r < rows; r++) {
      float *out = p.out.row(token + r) + n;
      store(out, load(sums + r * kBlockSide));
      store(out + kLanes, load(sums + r * kBlockSide + kLanes));
    }
    return;
  }
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < columns; c++) p.out.row(token + r)[n + c] = sums[r * kBlockSide + c] + bias_at(p.bias, n + c);
  }
}

/* A thread's memory. */
struct PanelMemory {
  bf16 *panels; /* [kMostPanels, kMostSlabSteps * 32, 32] */
  float *sums;  /* [kMostPanels, kSliceTokens / 32, 32, 32] */
  float *block; /* [32, 32] */

  static constexpr int64_t kPanelNumbers = kMostSlabSteps * kStepInputs * kBlockSide;
  static constexpr int64_t kPanelSums = kSliceTokens * kBlockSide;
  static constexpr int64_t kBytes = kMostPanels * (kPanelNumbers * int64_t(sizeof(bf16)) + kPanelSums * int64_t(sizeof(float))) +
                                    kBlockNumbers * int64_t(sizeof(float));

  explicit PanelMemory(void *memory)
      : panels(static_cast<bf16 *>(memory)),
        sums(reinterpret_cast<float *>(panels + kMostPanels * kPanelNumbers)),
        block(sums + kMostPanels * kPanelSums) {}
};

/* Outputs [first, end) of the tokens of blocks [first_block, end_block). pack(n, columns, k, depth, panel) writes weight rows
 * [n, n + columns) at inputs [k, k + depth) as steps of a right operand, with zeros for missing columns and inputs. */
template <typename Pack>
static void multiply_slabs(const MatmulParams &p, const RoundedTokens &x, const Pack &pack, int64_t first, int64_t end, int64_t first_block,
                           int64_t end_block, const PanelMemory &memory) {
  const TileRegisters registers;
  for (int64_t slab = 0; slab < x.slabs; slab++) {
    const bool last = slab + 1 == x.slabs;
    const int64_t steps = x.slab_steps(slab), k = x.first_step(slab) * kStepInputs, depth = last ? p.inputs - k : steps * kStepInputs;
    for (int64_t n = first; n < end; n += kBlockSide) {
      const int64_t columns = end - n < kBlockSide ? end - n : kBlockSide, index = (n - first) / kBlockSide;
      bf16 *panel = memory.panels + index * PanelMemory::kPanelNumbers;
      pack(n, columns, k, depth, panel);
      float *sums = memory.sums + index * PanelMemory::kPanelSums;
      for (int64_t block = first_block; block < end_block; block++, sums += kBlockNumbers) {
        const float *from = slab > 0 ? sums : nullptr;
        float *to = last ? memory.block : sums;
        const int row_tiles = row_tiles_from(block * kBlockSide, p.tokens);
        for (int64_t part = 0; part < x.parts; part++) {
          const bf16 *own = x.block(slab, block) + part * steps * row_tiles * kTileNumbers;
          if (row_tiles == 2) multiply_block<2>(steps, own, panel, part == 0 ? from : to, to);
          else multiply_block<1>(steps, own, panel, part == 0 ? from : to, to);
        }
        if (last) write_block(p, to, block * kBlockSide, n, columns);
      }
    }
  }
}

template <typename Pack>
static void multiply_bf16(ThreadPool &pool, const MatmulParams &p, const Pack &pack) {
  RoundedTokens x(p.tokens, p.inputs);
  const int64_t blocks = x.blocks;
  x.data = static_cast<bf16 *>(pool.shared_scratch(x.bytes()));
  pool.parallel_for(blocks, [&](int64_t block, int) { round_block(p, block, x); });

  const int64_t panels = (p.outputs + kBlockSide - 1) / kBlockSide, most = pool.size() * kMostPanels, rounds = (panels + most - 1) / most;
  const int64_t together = (panels + rounds * pool.size() - 1) / (rounds * pool.size()); /* equal shares for all threads */
  const int64_t shares = (panels + together - 1) / together;
  constexpr int64_t kSliceBlocks = kSliceTokens / kBlockSide;
  pool.reserve_scratch(PanelMemory::kBytes);
  pool.parallel_for(shares * ((blocks + kSliceBlocks - 1) / kSliceBlocks), [&](int64_t task, int thread) {
    const int64_t first = task % shares * together * kBlockSide, end = first + together * kBlockSide;
    const int64_t first_block = task / shares * kSliceBlocks, end_block = first_block + kSliceBlocks;
    multiply_slabs(p, x, pack, first, end < p.outputs ? end : p.outputs, first_block, end_block < blocks ? end_block : blocks,
                   PanelMemory(pool.scratch(thread)));
  });
}

/* 16 rows of 16 pairs of bf16, `stride` numbers apart, become a tile of the right operand: their columns. */
static void transpose_pairs(const bf16 *rows, int64_t stride, bf16 *out) {
  PS_UNROLL
  for (int group = 0; group < 4; group++) { /* of 4 pairs */
    __m512i v[4];
    PS_UNROLL
    for (int i = 0; i < 4; i++) { /* rows i, i + 4, i + 8 and i + 12 */
      const auto piece = [&](int row) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(rows + (i + row) * stride + group * 8)); };
      v[i] = _mm512_castsi128_si512(piece(0));
      v[i] = _mm512_mask_broadcast_i32x4(v[i], 0x00f0, piece(4));
      v[i] = _mm512_mask_broadcast_i32x4(v[i], 0x0f00, piece(8));
      v[i] = _mm512_mask_broadcast_i32x4(v[i], 0xf000, piece(12));
    }
    const __m512i low01 = _mm512_unpacklo_epi32(v[0], v[1]), high01 = _mm512_unpackhi_epi32(v[0], v[1]);
    const __m512i low23 = _mm512_unpacklo_epi32(v[2], v[3]), high23 = _mm512_unpackhi_epi32(v[2], v[3]);
    bf16 *target = out + group * 4 * kStepInputs;
    _mm512_storeu_si512(target, _mm512_unpacklo_epi64(low01, low23));
    _mm512_storeu_si512(target + kStepInputs, _mm512_unpackhi_epi64(low01, low23));
    _mm512_storeu_si512(target + 2 * kStepInputs, _mm512_unpacklo_epi64(high01, high23));
    _mm512_storeu_si512(target + 3 * kStepInputs, _mm512_unpackhi_epi64(high01, high23));
  }
}

/* Rows of bf16 weights as steps of a right operand. */
static void pack_bf16(const MatmulParams &p, int64_t n, int64_t columns, int64_t k, int64_t depth, bf16 *panel) {
  const bf16 *weight = static_cast<const bf16 *>(p.weight.data) + n * p.weight.stride + k;
  for (int64_t i = 0; i < depth; i += kStepInputs) {
    const int64_t present = depth - i < kStepInputs ? depth - i : kStepInputs;
    for (int64_t c = 0; c < kBlockSide; c += kTileSide, panel += kTileNumbers) {
      if (present == kStepInputs && columns - c >= kTileSide) {
        transpose_pairs(weight + c * p.weight.stride + i, p.weight.stride, panel);
        continue;
      }
      bf16 whole[kTileNumbers] = {};
      for (int64_t row = 0; row < kTileSide && c + row < columns; row++) {
        __builtin_memcpy(whole + row * kStepInputs, weight + (c + row) * p.weight.stride + i, static_cast<size_t>(present) * sizeof(bf16));
      }
      transpose_pairs(whole, kStepInputs, panel);
    }
  }
}

/* The same from f32 numbers [depth, 32], as a panel of matmul_panels.h, where depth is a multiple of 32. */
static void narrow_panel(const float *numbers, int64_t depth, bf16 *panel) {
  for (int64_t i = 0; i < depth; i += kStepInputs) {
    for (int half = 0; half < 2; half++, panel += kTileNumbers) {
      for (int pair = 0; pair < kTileSide; pair++) {
        const float *first = numbers + (i + 2 * pair) * kBlockSide + half * kTileSide;
        _mm512_storeu_si512(panel + pair * kStepInputs, pair_halves(narrow(load(first), load(first + kBlockSide))));
      }
    }
  }
}

}  // namespace PS_ISA
}  // namespace ps
