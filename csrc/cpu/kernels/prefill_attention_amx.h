/* Causal attention of a chunk on AMX, over keys and values of 16 or 8 bits: queries, keys, values and weights are rounded to bf16, sums and
 * the softmax are f32.
 *
 * The keys and values of a KV head are written once in the order of bf16_tiles.h, in blocks of kBlockColumns tokens. A task takes the rows
 * (tokens x query heads of the group) of a tile, and walks the blocks with 32 rows at a time: scores, softmax with a running maximum,
 * weighted values. Bound by the exponentials. */
#pragma once

#include "bf16_tiles.h"
#include "prompt_tile.h"

namespace ps {
namespace PS_ISA {

constexpr int64_t kBlockColumns = 256; /* a multiple of every page size */
constexpr int64_t kBlockPanels = kBlockColumns / kBlockSide;
constexpr int64_t kTileRowsOfTask = 128;
constexpr int64_t kPackedBytes = int64_t(32) << 20; /* heads are packed together up to here, so that short contexts keep all threads busy */
constexpr int64_t kOctetNumbers = 8;

/* Keys and values of some heads, packed: [heads, blocks, ...]. A block of keys is [panels of 32 tokens, steps of 32 dimensions], one of
 * values [panels of 32 dimensions, steps of 32 tokens]. */
struct PackedHeads {
  bf16 *keys, *values;
  int64_t first_block, blocks;
  int64_t steps; /* of the dimensions */

  int64_t block_numbers() const { return steps * kStepInputs * kBlockColumns; }
  int64_t offset(int64_t head, int64_t block) const { return (head * blocks + block - first_block) * block_numbers(); }
};

/* Eight numbers as bf16, times scales where the type has those. */
PS_INLINE __m128i load_octet(const bf16 *p, __m256) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)); }
PS_INLINE __m128i load_octet(const f16 *p, __m256) {
  return (__m128i)_mm256_cvtneps_pbh(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))));
}
PS_INLINE __m128i load_octet(const q8 *p, __m256 scale) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(p));
  return (__m128i)_mm256_cvtneps_pbh(_mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), scale));
}
PS_INLINE __m128i load_octet(const fp8 *p, __m256 scale) {
  const __m512 numbers = (__m512)widen(p, _mm_loadl_epi64(reinterpret_cast<const __m128i *>(p)));
  return (__m128i)_mm256_cvtneps_pbh(_mm256_mul_ps(_mm512_castps512_ps256(numbers), scale));
}

/* Pairs of numbers, one of each row. */
PS_INLINE void store_pairs(bf16 *out, __m128i first, __m128i second) {
  _mm_storeu_si128(reinterpret_cast<__m128i *>(out), _mm_unpacklo_epi16(first, second));
  _mm_storeu_si128(reinterpret_cast<__m128i *>(out + kOctetNumbers), _mm_unpackhi_epi16(first, second));
}

/* Where the right operand [inputs, columns] has numbers (input, column) and (input + 1, column), for an even input; its panels are
 * `steps` long. */
PS_INLINE int64_t place_of_pair(int64_t input, int64_t column, int64_t steps) {
  const int64_t tile = (column / kBlockSide * steps + input / kStepInputs) * 2 + column % kBlockSide / kTileSide;
  return tile * kTileNumbers + input % kStepInputs / 2 * kStepInputs + column % kTileSide * 2;
}

/* The tokens of block `block` before position `end`; zeros behind them and behind the last dimension. */
template <typename T>
static void pack_block(const PrefillAttentionParams &p, int64_t head, int64_t block, int64_t end, int64_t steps, bf16 *keys, bf16 *values) {
  const Layout layout(p.cache.desc);
  const int64_t d = layout.head_dim, first = block * kBlockColumns, count = end - first < kBlockColumns ? end - first : kBlockColumns;
  if (count < kBlockColumns || d < steps * kStepInputs) {
    const size_t bytes = static_cast<size_t>(steps * kStepInputs * kBlockColumns) * sizeof(bf16);
    __builtin_memset(keys, 0, bytes);
    __builtin_memset(values, 0, bytes);
  }
  for (int64_t column = 0; column < count; column += kOctetNumbers) {
    const int64_t page = p.page_table[(first + column) / layout.page_size], place = (first + column) % layout.page_size;
    const int64_t base = layout.tokens(p.layer, head, page), present = count - column < kOctetNumbers ? count - column : kOctetNumbers;
    const T *own_keys = static_cast<const T *>(p.cache.keys) + base, *own_values = static_cast<const T *>(p.cache.values) + base;
    const __mmask8 mask = static_cast<__mmask8>((1u << present) - 1);
    __m256 key_scales = _mm256_setzero_ps();
    const float *value_scales = nullptr;
    if constexpr (kIsScaled<T>) {
      const int64_t token = layout.token(p.layer, head, page) + place;
      key_scales = _mm256_loadu_ps(p.cache.key_scale + token);
      value_scales = p.cache.value_scale + token;
    }
    for (int64_t i = 0; i < d; i += 2) {
      const __m128i even = load_octet(own_keys + layout.key(place, i), key_scales), odd = load_octet(own_keys + layout.key(place, i + 1), key_scales);
      store_pairs(keys + place_of_pair(i, column, steps), _mm_maskz_mov_epi16(mask, even), _mm_maskz_mov_epi16(mask, odd));
    }
    for (int64_t t = 0; t < present; t += 2) { /* what an earlier owner left may be NaN, whose product with a weight of 0 would not be 0 */
      const auto octet = [&](int64_t token, int64_t i) {
        if (token >= present) return _mm_setzero_si128();
        const __m256 scale = value_scales ? _mm256_set1_ps(value_scales[token]) : _mm256_setzero_ps();
        return load_octet(own_values + layout.value(place + token, i), scale);
      };
      for (int64_t i = 0; i < d; i += kOctetNumbers) {
        store_pairs(values + place_of_pair(column + t, i, kBlockPanels), octet(t, i), octet(t + 1, i));
      }
    }
  }
}

/* The rows of a task, in blocks of 32. The last block has one tile per step if that holds its rows. */
struct AmxTile {
  bf16 *q;        /* [row blocks, steps], scaled */
  bf16 *weights;  /* [kBlockPanels steps], of one row block */
  float *scores;  /* [kBlockPanels, 32, 32], of one row block */
  float *out;     /* [row blocks, steps, 32, 32] */
  float *maximum; /* [rows] */
  float *total;   /* [rows] */
  int64_t steps, rows, group, first_position;

  static int64_t bytes(int64_t rows, int64_t steps) {
    const int64_t padded = (rows + kBlockSide - 1) / kBlockSide * kBlockSide;
    return padded * steps * kStepInputs * int64_t(sizeof(bf16) + sizeof(float)) + kBlockColumns * kBlockSide * int64_t(sizeof(bf16) + sizeof(float)) +
           2 * padded * int64_t(sizeof(float));
  }

  AmxTile(void *memory, int64_t most_rows, int64_t dim_steps) : steps(dim_steps), rows(0), group(0), first_position(0) {
    const int64_t padded = (most_rows + kBlockSide - 1) / kBlockSide * kBlockSide;
    q = static_cast<bf16 *>(memory);
    weights = q + padded * steps * kStepInputs;
    scores = reinterpret_cast<float *>(weights + kBlockColumns * kBlockSide);
    out = scores + kBlockColumns * kBlockSide;
    maximum = out + padded * steps * kStepInputs;
    total = maximum + padded;
  }

  int row_tiles(int64_t row) const { return rows - row > kTileSide ? 2 : 1; }
  int64_t position(int64_t row) const { return first_position + row / group; }
};

constexpr float kLog2e = 1.44269504088896341f;

static void start_rows(const AmxTile &tile, const PrefillAttentionParams &p, int64_t head, int64_t token) {
  const int64_t d = p.cache.desc.head_dim;
  for (int64_t row = 0; row < tile.rows; row += kBlockSide) {
    const int64_t rows = tile.rows - row < kBlockSide ? tile.rows - row : kBlockSide, step_numbers = tile.row_tiles(row) * kTileNumbers;
    for (int64_t r = 0; r < rows; r++) {
      const float *q = p.q.row(token + (row + r) / tile.group) + (head * tile.group + (row + r) % tile.group) * d;
      bf16 *target = tile.q + row * tile.steps * kStepInputs + r * kStepInputs;
      for (int64_t step = 0; step < tile.steps; step++) {
        Vec first, second;
        load_row(q + step * kStepInputs, d - step * kStepInputs, &first, &second);
        _mm512_storeu_si512(target + step * step_numbers, narrow(first * (p.scale * kLog2e), second * (p.scale * kLog2e)));
      }
      tile.maximum[row + r] = -__builtin_inff();
      tile.total[row + r] = 0;
    }
  }
  const int64_t blocks = (tile.rows + kBlockSide - 1) / kBlockSide;
  for (int64_t i = 0; i < blocks * kBlockSide * tile.steps * kStepInputs; i += kLanes) store(tile.out + i, Vec{});
}

/* 2^x for x up to 126, to 3 millionths; 2^-125 for all x below. */
PS_INLINE Vec exp2_weight(Vec x) {
  x = vmax(set1(-125.f), x); /* this order of arguments propagates NaN; lower powers would be denormal, and take a processor 100 times as long */
  const Vec shifted = x + 12582912.f; /* 1.5 * 2^23: rounds to an integer */
  const Vec n = shifted - 12582912.f, r = x - n;
  Vec p = fma(r, set1(0.0095700804f), set1(0.0559178586f));
  p = fma(p, r, set1(0.240247454f));
  p = fma(p, r, set1(0.693121815f));
  p = fma(p, r, set1(0.999999261f));
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)n);
}

constexpr int64_t kPanelScores = kBlockSide * kBlockSide;

/* The largest of a row's scores in panels [from, to). */
static float largest_score(const float *scores, int64_t from, int64_t to) {
  Vec largest = set1(-__builtin_inff());
  for (int64_t panel = from; panel < to; panel++) {
    largest = vmax(load(scores + panel * kPanelScores), largest);
    largest = vmax(load(scores + panel * kPanelScores + kLanes), largest);
  }
  return reduce_max(largest);
}

/* Writes 2^(score - limit) for a row's scores in panels [from, to); the weights of panels lie step_numbers apart. Adds them to *total, and
 * returns the largest score. */
static float weigh_scores(const float *scores, int64_t from, int64_t to, float limit, bf16 *weights, int64_t step_numbers, float *total) {
  Vec largest = set1(-__builtin_inff()), first_sum{}, second_sum{};
  for (int64_t panel = from; panel < to; panel++) {
    const Vec first = load(scores + panel * kPanelScores), second = load(scores + panel * kPanelScores + kLanes);
    largest = vmax(second, vmax(first, largest));
    const Vec first_weight = exp2_weight(first - limit), second_weight = exp2_weight(second - limit);
    first_sum += first_weight;
    second_sum += second_weight;
    _mm512_storeu_si512(weights + panel * step_numbers, narrow(first_weight, second_weight));
  }
  *total += reduce_add(first_sum + second_sum);
  return reduce_max(largest);
}

/* Scores may be this much above the maximum that weights are relative to, in powers of 2: bf16 and f32 have the range. So most blocks need
 * no pass for the maximum alone, and no new scale for the earlier sums. */
constexpr float kMostAbove = 30;

/* Writes the weights of row `row`, whose scores of panels [from, to) lie in row r of its row block. Columns outside [begin, end) weigh
 * next to nothing: 2^-125. */
static void weigh_columns(const AmxTile &tile, int64_t row, int64_t r, int64_t from, int64_t to, int64_t begin, int64_t end) {
  float *scores = tile.scores + r * kBlockSide;
  bf16 *weights = tile.weights + r * kStepInputs;
  const int64_t step_numbers = tile.row_tiles(row - r) * kTileNumbers;
  const auto mask = [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; c++) scores[c / kBlockSide * kPanelScores + c % kBlockSide] = -__builtin_inff();
  };
  if (begin > from * kBlockSide) mask(from * kBlockSide, begin < to * kBlockSide ? begin : to * kBlockSide);
  if (end < to * kBlockSide) mask(end > from * kBlockSide ? end : from * kBlockSide, to * kBlockSide);

  const float before = tile.maximum[row];
  const bool is_first = before == -__builtin_inff();
  float total = tile.total[row];
  const float largest = is_first ? largest_score(scores, from, to) : weigh_scores(scores, from, to, before, weights, step_numbers, &total);
  if (is_first || largest > before + kMostAbove) {
    const float now = largest == -__builtin_inff() ? 0.f : largest, factor = is_first ? 0.f : exp2_weight(set1(before - now))[0];
    tile.maximum[row] = largest;
    total = tile.total[row] * factor;
    float *out = tile.out + (row - r) * tile.steps * kStepInputs + r * kBlockSide;
    for (int64_t step = 0; step < tile.steps; step++, out += kPanelScores) {
      store(out, load(out) * factor);
      store(out + kLanes, load(out + kLanes) * factor);
    }
    weigh_scores(scores, from, to, now, weights, step_numbers, &total);
  }
  tile.total[row] = total;
}

/* The 32 rows from `row` on over panels [from, to) of a block whose first token is at position `first`. */
template <int RowTiles>
static void attend_rows(const AmxTile &tile, const bf16 *keys, const bf16 *values, int64_t row, int64_t first, int64_t from, int64_t to,
                        int32_t window) {
  const bf16 *q = tile.q + row * tile.steps * kStepInputs;
  for (int64_t panel = from; panel < to; panel++) {
    multiply_block<RowTiles>(tile.steps, q, keys + panel * tile.steps * kStepNumbers, nullptr, tile.scores + panel * kPanelScores);
  }
  for (int64_t r = 0; r < kBlockSide && row + r < tile.rows; r++) {
    const int64_t position = tile.position(row + r);
    weigh_columns(tile, row + r, r, from, to, window > 0 ? position - window + 1 - first : 0, position + 1 - first);
  }
  float *out = tile.out + row * tile.steps * kStepInputs;
  for (int64_t step = 0; step < tile.steps; step++, out += kPanelScores) {
    multiply_block<RowTiles>(to - from, tile.weights + from * RowTiles * kTileNumbers, values + (step * kBlockPanels + from) * kStepNumbers, out,
                             out);
  }
}

static void attend_tile_amx(const PrefillAttentionParams &p, const PackedHeads &packed, const AmxTile &tile, int64_t head, int64_t packed_head,
                            int64_t token) {
  const TileRegisters registers;
  start_rows(tile, p, head, token);
  const int64_t end = tile.position(tile.rows - 1) + 1;
  const int64_t oldest = p.window > 0 && tile.first_position - p.window + 1 > 0 ? tile.first_position - p.window + 1 : 0;
  for (int64_t block = oldest / kBlockColumns; block * kBlockColumns < end; block++) {
    const int64_t first = block * kBlockColumns, from = oldest > first ? (oldest - first) / kBlockSide : 0;
    const int64_t to = end - first < kBlockColumns ? (end - first + kBlockSide - 1) / kBlockSide : kBlockPanels;
    const bf16 *keys = packed.keys + packed.offset(packed_head, block), *values = packed.values + packed.offset(packed_head, block);
    for (int64_t row = 0; row < tile.rows; row += kBlockSide) {
      if (tile.row_tiles(row) == 2) attend_rows<2>(tile, keys, values, row, first, from, to, p.window);
      else attend_rows<1>(tile, keys, values, row, first, from, to, p.window);
    }
  }
  const int64_t d = p.cache.desc.head_dim;
  for (int64_t row = 0; row < tile.rows; row++) {
    float *out = p.out.row(token + row / tile.group) + (head * tile.group + row % tile.group) * d;
    const float *sums = tile.out + row / kBlockSide * kBlockSide * tile.steps * kStepInputs + row % kBlockSide * kBlockSide;
    for (int64_t i = 0; i < d; i += kLanes) store(out + i, load(sums + i / kBlockSide * kBlockSide * kBlockSide + i % kBlockSide) / tile.total[row]);
  }
}

/* For caches whose keys and values are not f32. */
static void attend_packed(ThreadPool &pool, const PrefillAttentionParams &p) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t heads = desc.num_kv_heads, group = desc.num_query_heads / heads, end = p.start + p.tokens;
  const int64_t tile_tokens = group >= kTileRowsOfTask ? 1 : kTileRowsOfTask / group, tiles = (p.tokens + tile_tokens - 1) / tile_tokens;
  PackedHeads packed{};
  packed.steps = (desc.head_dim + kStepInputs - 1) / kStepInputs;
  packed.first_block = p.window > 0 && p.start - p.window + 1 > 0 ? (p.start - p.window + 1) / kBlockColumns : 0;
  packed.blocks = (end + kBlockColumns - 1) / kBlockColumns - packed.first_block;
  const int64_t head_numbers = packed.blocks * packed.block_numbers(), head_bytes = 2 * head_numbers * int64_t(sizeof(bf16));
  const int64_t fitting = kPackedBytes / head_bytes, together = fitting < 1 ? 1 : fitting < heads ? fitting : heads;
  packed.keys = static_cast<bf16 *>(pool.shared_scratch(together * head_bytes));
  packed.values = packed.keys + together * head_numbers;
  pool.reserve_scratch(AmxTile::bytes(tile_tokens * group, packed.steps));
  for (int64_t first_head = 0; first_head < heads; first_head += together) {
    const int64_t count = heads - first_head < together ? heads - first_head : together;
    with_kv_type(desc, [&](auto type) {
      if constexpr (sizeof(type) < sizeof(float)) {
        pool.parallel_for(count * packed.blocks, [&](int64_t task, int) {
          const int64_t head = task / packed.blocks, block = packed.first_block + task % packed.blocks, offset = packed.offset(head, block);
          pack_block<decltype(type)>(p, first_head + head, block, end, packed.steps, packed.keys + offset, packed.values + offset);
        });
      }
    });
    pool.parallel_for(tiles * count, [&](int64_t task, int thread) {
      const int64_t token = (tiles - 1 - task / count) * tile_tokens, tokens = p.tokens - token < tile_tokens ? p.tokens - token : tile_tokens;
      AmxTile tile(pool.scratch(thread), tile_tokens * group, packed.steps); /* the longest first */
      tile.rows = tokens * group;
      tile.group = group;
      tile.first_position = p.start + token;
      attend_tile_amx(p, packed, tile, first_head + task % count, task % count, token);
    });
  }
}

/* The same where tiles have chosen pages: a task packs those of one tile and KV head, and walks them with all rows of the tile. */
static void attend_chosen_packed(ThreadPool &pool, const PrefillAttentionParams &p) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t heads = desc.num_kv_heads, group = desc.num_query_heads / heads, most_pages = most_tile_pages(p);
  const int64_t most_rows = (p.tile_tokens < p.tokens ? p.tile_tokens : p.tokens) * group;
  PackedHeads packed{};
  packed.steps = (desc.head_dim + kStepInputs - 1) / kStepInputs;
  const int64_t most_numbers = (most_pages * desc.page_size / kBlockColumns + 1) * packed.block_numbers();
  const int64_t tile_bytes = AmxTile::bytes(most_rows, packed.steps);
  pool.reserve_scratch(tile_bytes + 2 * most_numbers * int64_t(sizeof(bf16)) + most_pages * int64_t(sizeof(int32_t)));
  pool.parallel_for(p.tiles().count() * heads, [&](int64_t task, int thread) {
    const int64_t head = task % heads;
    char *memory = static_cast<char *>(pool.scratch(thread));
    PackedHeads own = packed;
    own.keys = reinterpret_cast<bf16 *>(memory + tile_bytes);
    own.values = own.keys + most_numbers;
    const PrefillAttentionParams call = tile_call(p, task / heads, head, reinterpret_cast<int32_t *>(own.values + most_numbers));
    own.blocks = (call.start + call.tokens + kBlockColumns - 1) / kBlockColumns;
    with_kv_type(desc, [&](auto type) {
      if constexpr (sizeof(type) < sizeof(float)) {
        for (int64_t block = 0; block < own.blocks; block++) {
          pack_block<decltype(type)>(call, head, block, call.start + call.tokens, own.steps, own.keys + own.offset(0, block),
                                     own.values + own.offset(0, block));
        }
      }
    });
    AmxTile tile(memory, most_rows, own.steps);
    tile.rows = call.tokens * group;
    tile.group = group;
    tile.first_position = call.start;
    attend_tile_amx(call, own, tile, head, 0, 0);
  });
}

}  // namespace PS_ISA
}  // namespace ps
