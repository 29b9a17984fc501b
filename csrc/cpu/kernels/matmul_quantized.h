/* out = x * weight^T + bias with weights in blocks.
 *
 * x is rounded to 15 bits per group of 32 inputs, in two parts of 8 bits, and multiplied as integers with the levels of a tile of
 * weight_tiles.h; one product of two floats per group and row brings in the scales. With 8 bits alone, the logits of SmolLM2 in Q4_1 are 14
 * times as far from the exact ones: activations of real models have outliers, beside which the other numbers of a group keep few bits.
 * Products of a few tokens are bound by the bytes of the weights. Those of many tokens are bound by arithmetic; processors without products
 * of bytes (VNNI) then do better with weights widened to f32 in panels (matmul_panels.h). f8 weights are always widened. AMX and the
 * bf16 instructions of arm64 multiply weights and x as bf16 (matmul_amx.h, matmul_bfmmla.h). */
#pragma once

#include "int8_dot.h"
#include "matmul_panels.h"
#if defined(__AMX_BF16__)
#include "matmul_amx.h"
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include "matmul_bfmmla.h"
#endif
#include "weight_tiles.h"

namespace ps {
namespace PS_ISA {

constexpr int kParts = kRowsPerTile / kLanes; /* vectors that hold a number of each row */
constexpr int64_t kPrefetchBytes = 8192;
constexpr int kMostTokens = 8;                /* up to here, products are bound by the bytes of the weights */
constexpr int kPassTokens = kLanes == 4 ? 4 : 8; /* most of a pass over a tile: their sums stay in registers */
constexpr int64_t kTileTaskBytes = 1 << 15;   /* weight bytes that a thread takes at a time */

/* A group of x: (128 * high + low) * scale. */
struct RoundedGroup {
  int8_t high[kGroup], low[kGroup]; /* up to 127 and 64 */
  float scale, scaled_sum;          /* scaled_sum = scale * (sum of all) */
  int32_t sums[2];                  /* of each half */
};
constexpr int kHighUnit = 128, kMostRounded = 127 * kHighUnit;

static void round_group(const float *x, RoundedGroup *out) {
  VecBits largest{}; /* as integers, so that NaN is above infinity, above all else */
  for (int i = 0; i < kGroup; i += kLanes) {
    const VecBits bits = (VecBits)load(x + i) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  uint32_t most = 0;
  for (int i = 0; i < kLanes; i++) most = largest[i] > most ? largest[i] : most;
  if (most >= 0x7f800000u) { /* makes every product with this group NaN */
    *out = RoundedGroup{};
    out->scale = out->scaled_sum = float_from_bits(0x7fc00000u);
    return;
  }
  const float magnitude = float_from_bits(most);
  const Vec by = set1(magnitude > 0x1p-110f ? float(kMostRounded) / magnitude : 0.f);
  int32_t q[kGroup];
  for (int i = 0; i < kGroup; i += kLanes) {
    const VecInt rounded = (VecInt)fma(load(x + i), by, set1(12582912.f)) - 0x4b400000; /* 1.5 * 2^23: rounds to an integer */
    __builtin_memcpy(q + i, &rounded, sizeof rounded);
  }
  out->sums[0] = out->sums[1] = 0;
  for (int i = 0; i < kGroup; i++) out->sums[i / 16] += q[i];
  for (int i = 0; i < kGroup; i++) {
    const int32_t high = (q[i] + kHighUnit / 2) >> 7;
    out->high[i] = static_cast<int8_t>(high);
    out->low[i] = static_cast<int8_t>(q[i] - kHighUnit * high);
  }
  out->scale = magnitude / float(kMostRounded);
  out->scaled_sum = out->scale * float(out->sums[0] + out->sums[1]);
}

/* The levels of one part of the rows: vector k has those of inputs 4 k to 4 k + 3. */
template <typename F>
PS_INLINE void load_levels(const uint8_t *group, int part, VecBytes *w) {
  using Layout = TileLayout<F>;
  group += part * kVecBytes;
  if constexpr (F::kBits == 8) {
    PS_UNROLL
    for (int k = 0; k < 8; k++) w[k] = load_bytes(group + k * kTilePiece) ^ uint8_t(kSignedAsOffset ? 128 : 0);
  } else {
    PS_UNROLL
    for (int k = 0; k < 4; k++) {
      const VecBits pairs = (VecBits)load_bytes(group + k * kTilePiece);
      w[k] = (VecBytes)(pairs & 0x0f0f0f0fu);
      w[k + 4] = (VecBytes)(pairs >> 4 & 0x0f0f0f0fu);
    }
    const uint8_t *planes = group - part * kVecBytes + Layout::kLevelPieces * kTilePiece + part * (kVecBytes / 8);
    PS_UNROLL
    for (int plane = 0; plane < Layout::kPlanes; plane++) {
      PS_UNROLL
      for (int k = 0; k < 8; k++) w[k] |= spread_bits(planes + plane * kTilePiece + 8 * k, static_cast<uint8_t>(16 << plane));
    }
  }
}

/* What every level is too large by. */
template <typename F>
constexpr int kTakenOff = F::kBits == 8 && kSignedAsOffset ? 128 : F::kOffset;

/* Scales and minima of a group of one part of the rows. */
struct GroupScales {
  Vec scale[2], min;
};

template <typename F>
PS_INLINE GroupScales load_scales(const uint8_t *block, int group, int part) {
  const auto halves = [&](int at) { return load(reinterpret_cast<const f16 *>(block + at * kRowsPerTile) + part * kLanes); };
  const auto bytes = [&](int at) { return block + at * kRowsPerTile + part * kLanes; };
  GroupScales out{};
  if constexpr (F::kGroups == 1) {
    out.scale[0] = halves(0);
    if constexpr (F::kHasMin) out.min = halves(2);
  } else if constexpr (F::kScalesPerGroup == 2) {
    const Vec scale = halves(16);
    for (int half = 0; half < 2; half++) out.scale[half] = scale * to_floats(widen_signed_bytes(bytes(2 * group + half)));
  } else {
    const VecInt upper = widen_bytes(bytes(4 + 4 + group % 4));
    VecInt scale = widen_bytes(bytes(4 + group % 4)), min = upper;
    if (group < 4) {
      scale &= 63;
      min &= 63;
    } else {
      const VecInt both = widen_bytes(bytes(4 + 4 + group));
      min = both >> 4 | upper >> 6 << 4;
      scale = (both & 15) | scale >> 6 << 4;
    }
    out.scale[0] = halves(0) * to_floats(scale);
    out.min = -(halves(2) * to_floats(min));
  }
  return out;
}

/* sum[j] += the tile's product with token j of x, whose tokens lie x_stride groups apart. */
template <typename F, int Tokens>
PS_INLINE void multiply_tile(const WeightTile<F, const uint8_t> &tile, const RoundedGroup *x, int64_t x_stride, Vec (*sum)[kParts]) {
  constexpr int kScales = F::kScalesPerGroup;
  const int64_t blocks = tile.groups / F::kGroups;
  for (int64_t b = 0; b < blocks; b++) {
    for (int inside = 0; inside < F::kGroups; inside++) {
      const int64_t group = b * F::kGroups + inside;
      PS_UNROLL
      for (int line = 0; line < TileLayout<F>::kGroupBytes; line += 64) prefetch_ahead(tile.levels(group) + line, kPrefetchBytes);
      PS_UNROLL
      for (int part = 0; part < kParts; part++) {
        VecBytes w[8];
        load_levels<F>(tile.levels(group), part, w);
        const GroupScales scales = load_scales<F>(tile.scales(b), inside, part);
        PS_UNROLL
        for (int j = 0; j < Tokens; j++) {
          const RoundedGroup &one = x[j * x_stride + group];
          PS_UNROLL
          for (int s = 0; s < kScales; s++) {
            const int32_t taken = kTakenOff<F> * (kScales == 2 ? one.sums[s] : one.sums[0] + one.sums[1]);
            const int at = kGroup / kScales * s;
            const VecInt high = dot<F::kBits, 8 / kScales>(w + 8 / kScales * s, one.high + at, VecInt{});
            const VecInt low = dot<F::kBits, 8 / kScales>(w + 8 / kScales * s, one.low + at, set1_int(-taken));
            const VecInt products = high * kHighUnit + low;
            sum[j][part] = fma(to_floats(products), scales.scale[s] * set1(one.scale), sum[j][part]);
          }
          if constexpr (F::kHasMin) sum[j][part] = fma(scales.min, set1(one.scaled_sum), sum[j][part]);
        }
      }
    }
  }
}

/* 2 * kLanes numbers of e4m3, divided by 256: f16 has room for their bits, and the processors convert that. */
PS_INLINE void load_f8(const uint8_t *p, Vec &first, Vec &second) {
#if defined(__AVX512BW__)
  const __m512i bits = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
  const __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi16(0x7f));
  const __m512i half = _mm512_or_si512(_mm512_slli_epi16(magnitude, 7), _mm512_and_si512(_mm512_slli_epi16(bits, 8), _mm512_set1_epi16(-0x8000)));
  const __mmask32 nan = _mm512_cmpeq_epi16_mask(magnitude, _mm512_set1_epi16(0x7f));
  const __m512i halves = _mm512_mask_mov_epi16(half, nan, _mm512_set1_epi16(0x7e00));
  first = (Vec)_mm512_cvtph_ps(_mm512_castsi512_si256(halves));
  second = (Vec)_mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
#elif defined(__AVX2__)
  const __m256i bits = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
  const __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi16(0x7f));
  const __m256i half = _mm256_or_si256(_mm256_slli_epi16(magnitude, 7), _mm256_and_si256(_mm256_slli_epi16(bits, 8), _mm256_set1_epi16(-0x8000)));
  const __m256i nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x7f));
  const __m256i halves = _mm256_blendv_epi8(half, _mm256_set1_epi16(0x7e00), nan);
  first = (Vec)_mm256_cvtph_ps(_mm256_castsi256_si128(halves));
  second = (Vec)_mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
#else
  for (Vec *out : {&first, &second}) {
    const VecBits bits = (VecBits)widen_bytes(p + (out == &second ? kLanes : 0)), magnitude = bits & 0x7f;
    const Vec value = (Vec)(magnitude << 20) * 0x1p112f;
    const VecBits nan = ((magnitude + 1) >> 7) * 0x7fc00000u; /* no comparison: without SSE4.1 those go number by number */
    *out = (Vec)((VecBits)value | nan | (bits & 0x80) << 24);
  }
#endif
}

/* The same for f8, with x as it is; its tokens lie x_stride numbers apart. */
template <typename F, int Tokens>
PS_INLINE void multiply_tile(const WeightTile<F, const uint8_t> &tile, const float *x, int64_t x_stride, Vec (*sum)[kParts]) {
  constexpr int kVectors = kParts > 2 ? kParts : 2; /* of weights at a time */
  constexpr int kInputs = kVectors / kParts;        /* that they cover */
  constexpr int kSums = Tokens <= 2 ? 2 : 1;        /* enough independent sums to hide the latency of an addition */
  for (int64_t b = 0; b < tile.groups / F::kGroups; b++) {
    const uint8_t *levels = tile.levels(b * F::kGroups);
    const float *numbers = x + b * F::kNumbers;
    Vec inner[Tokens][kSums][kVectors] = {};
    for (int i = 0; i < F::kNumbers; i += kSums * kInputs) {
      PS_UNROLL
      for (int s = 0; s < kSums; s++) {
        const int input = i + s * kInputs;
        prefetch_ahead(levels + input * kRowsPerTile, kPrefetchBytes);
        PS_UNROLL
        for (int v = 0; v < kVectors; v += 2) {
          Vec first, second;
          load_f8(levels + input * kRowsPerTile + v * kLanes, first, second);
          PS_UNROLL
          for (int j = 0; j < Tokens; j++) {
            inner[j][s][v] = fma(first, set1(numbers[j * x_stride + input]), inner[j][s][v]);
            inner[j][s][v + 1] = fma(second, set1(numbers[j * x_stride + input + kInputs - 1]), inner[j][s][v + 1]);
          }
        }
      }
    }
    PS_UNROLL
    for (int j = 0; j < Tokens; j++) {
      const auto joined = [&](int v) { return kSums == 2 ? inner[j][0][v] + inner[j][kSums - 1][v] : inner[j][0][v]; };
      PS_UNROLL
      for (int part = 0; part < kParts; part++) {
        const Vec all = kParts == 1 ? joined(0) + joined(1) : joined(part);
        const Vec scale = load(reinterpret_cast<const float *>(tile.scales(b)) + part * kLanes);
        sum[j][part] = fma(all * 256.f, scale, sum[j][part]);
      }
    }
  }
}

/* A group of a tile as f32: out [kGroup, kRowsPerTile], whose rows lie kTileColumns apart. */
template <typename F>
PS_INLINE void widen_group(const WeightTile<F, const uint8_t> &tile, int64_t group, float *out) {
  const uint8_t *block_scales = tile.scales(group / F::kGroups), *levels = tile.levels(group);
  if constexpr (std::is_same<F, F8>::value) {
    const float *scales = reinterpret_cast<const float *>(block_scales);
    for (int v = 0; v < kGroup * kParts; v += 2) {
      Vec two[2];
      load_f8(levels + v * kLanes, two[0], two[1]);
      for (int i = v; i < v + 2; i++) {
        store(out + i / kParts * kTileColumns + i % kParts * kLanes, two[i - v] * 256.f * load(scales + i % kParts * kLanes));
      }
    }
  } else {
    for (int part = 0; part < kParts; part++) {
      VecBytes w[8];
      load_levels<F>(levels, part, w);
      const GroupScales scales = load_scales<F>(block_scales, int(group % F::kGroups), part);
      for (int i = 0; i < kGroup; i++) {
        const VecInt four = (VecInt)w[i / 4];
        const VecInt level = F::kBits == 8 && !kSignedAsOffset ? four << (24 - i % 4 * 8) >> 24 : four >> i % 4 * 8 & 255;
        const Vec number = to_floats(level - kTakenOff<F>) * scales.scale[i / 16 * (F::kScalesPerGroup - 1)];
        store(out + i * kTileColumns + part * kLanes, F::kHasMin ? number + scales.min : number);
      }
    }
  }
}

/* Rows [n, n + columns) at inputs [k, k + depth) as a panel of matmul_panels.h. */
template <typename F>
static void pack_tiles(const TiledWeight<F, const uint8_t> &weight, int64_t n, int64_t columns, int64_t k, int64_t depth, float *panel) {
  for (int64_t c = 0; c < kTileColumns; c += kRowsPerTile) {
    const bool tiled = n + c < weight.tiled_rows;
    for (int64_t i = 0; i < depth; i += kGroup) {
      float *out = panel + i * kTileColumns + c;
      if (tiled) widen_group<F>(weight.tile(n + c), (k + i) / kGroup, out);
      for (int64_t column = 0; !tiled && column < kRowsPerTile; column++) {
        float numbers[kGroup] = {};
        if (c + column < columns) read_weight_group(weight, n + c + column, (k + i) / kGroup, numbers);
        for (int j = 0; j < kGroup; j++) out[j * kTileColumns + column] = numbers[j];
      }
    }
  }
}

/* x as multiply_tile reads it. */
template <typename X>
struct Activations {
  const X *data;
  int64_t stride;
};

/* Outputs [n, n + rows) of tokens [t, t + Tokens). */
template <typename F, int Tokens, typename X>
static void tile_outputs(const MatmulParams &p, const WeightTile<F, const uint8_t> &tile, const Activations<X> &x, int64_t n, int rows, int64_t t) {
  Vec sum[Tokens][kParts] = {};
  multiply_tile<F, Tokens>(tile, x.data + t * x.stride, x.stride, sum);
  for (int j = 0; j < Tokens; j++) {
    float *out = p.out.row(t + j) + n;
    if (rows == kRowsPerTile && p.bias.data == nullptr) {
      PS_UNROLL
      for (int part = 0; part < kParts; part++) store(out + part * kLanes, sum[j][part]);
      continue;
    }
    float numbers[kRowsPerTile];
    for (int part = 0; part < kParts; part++) store(numbers + part * kLanes, sum[j][part]);
    for (int i = 0; i < rows; i++) out[i] = numbers[i] + bias_at(p.bias, n + i);
  }
}

template <typename F, typename X>
static void tile_tokens(const MatmulParams &p, const WeightTile<F, const uint8_t> &tile, const Activations<X> &x, int64_t n, int rows) {
  int64_t t = 0;
  for (; t + kPassTokens <= p.tokens; t += kPassTokens) tile_outputs<F, kPassTokens>(p, tile, x, n, rows, t);
  for (; t + 4 <= p.tokens; t += 4) tile_outputs<F, 4>(p, tile, x, n, rows, t);
  for (; t + 2 <= p.tokens; t += 2) tile_outputs<F, 2>(p, tile, x, n, rows, t);
  for (; t < p.tokens; t++) tile_outputs<F, 1>(p, tile, x, n, rows, t);
}

/* The rows behind the last whole tile, arranged as one in `memory`. */
template <typename F>
static WeightTile<F, const uint8_t> arrange_tail(const TiledWeight<F, const uint8_t> &weight, int rows, uint8_t *memory) {
  const WeightTile<F, uint8_t> tile{memory, weight.groups};
  for (int row = 0; row < rows; row++) write_tile_row<F>(tile, row, weight.plain_row(weight.tiled_rows + row));
  return {memory, weight.groups};
}

template <typename F, typename X>
static void multiply_tiles(ThreadPool &pool, const MatmulParams &p, const Activations<X> &x, uint8_t *tail) {
  const TiledWeight<F, const uint8_t> weight(p.weight, p.outputs, p.inputs);
  const int64_t tile_bytes = p.inputs / F::kNumbers * TileLayout<F>::kBlockBytes;
  const int64_t grain = p.tokens <= kMostTokens ? (kTileTaskBytes + tile_bytes - 1) / tile_bytes : 1;
  const int64_t tiles = (p.outputs + kRowsPerTile - 1) / kRowsPerTile;
  parallel_ranges(pool, tiles, grain, [&](int64_t first, int64_t end) {
    for (int64_t n = first * kRowsPerTile; n < end * kRowsPerTile; n += kRowsPerTile) {
      const int rows = n < weight.tiled_rows ? kRowsPerTile : int(p.outputs - n);
      tile_tokens<F>(p, rows == kRowsPerTile ? weight.tile(n) : arrange_tail<F>(weight, rows, tail), x, n, rows);
    }
  });
}

static void round_tokens(ThreadPool &pool, const MatmulParams &p, RoundedGroup *out) {
  const int64_t groups = p.inputs / kGroup;
  parallel_ranges(pool, p.tokens, rows_per_task(p.inputs), [&](int64_t first, int64_t end) {
    for (int64_t t = first; t < end; t++) {
      for (int64_t group = 0; group < groups; group++) round_group(p.x.row(t) + group * kGroup, out + t * groups + group);
    }
  });
}

template <typename F>
static void multiply_tiles(ThreadPool &pool, const MatmulParams &p) {
  constexpr bool kRounds = !std::is_same<F, F8>::value;
  const int64_t groups = p.inputs / kGroup, rounded_bytes = kRounds ? p.tokens * groups * int64_t(sizeof(RoundedGroup)) : 0;
  uint8_t *memory = static_cast<uint8_t *>(pool.shared_scratch(rounded_bytes + kRowsPerTile * bytes_of_numbers(p.weight.dtype, p.inputs)));
  uint8_t *tail = memory + rounded_bytes;
  if constexpr (kRounds) {
    auto *rounded = reinterpret_cast<RoundedGroup *>(memory);
    round_tokens(pool, p, rounded);
    multiply_tiles<F>(pool, p, Activations<RoundedGroup>{rounded, groups}, tail);
  } else {
    multiply_tiles<F>(pool, p, Activations<float>{p.x.data, p.x.stride}, tail);
  }
}

static void matmul_quantized(ThreadPool &pool, const MatmulParams &p) {
  with_format(p.weight.dtype, [&](auto format) {
    using F = decltype(format);
    constexpr bool kManyInPanels = !kMultipliesBytes || std::is_same<F, F8>::value;
    const TiledWeight<F, const uint8_t> weight(p.weight, p.outputs, p.inputs);
#if defined(__AMX_BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    if (p.tokens > kFewTileTokens) {
      return multiply_bf16(pool, p, [&](int64_t n, int64_t columns, int64_t k, int64_t depth, bf16 *panel) {
        for (int64_t i = 0; i < depth; i += kGroup, panel += kStepNumbers) {
          float numbers[kGroup * kTileColumns];
          pack_tiles(weight, n, columns, k + i, kGroup, numbers);
          narrow_panel(numbers, kGroup, panel);
        }
      });
    }
#endif
    if (!kManyInPanels || p.tokens <= kMostTokens) return multiply_tiles<F>(pool, p);
    multiply_panels(pool, p,
                    [&](int64_t n, int64_t columns, int64_t k, int64_t depth, float *panel) { pack_tiles(weight, n, columns, k, depth, panel); });
  });
}

}  // namespace PS_ISA
}  // namespace ps
