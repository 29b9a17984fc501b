/* Causal attention of a chunk on AMX, over keys and values of 16 or 8 bits: queries, keys, values and weights are rounded to bf16, sums and
 * the softmax are f32.
 *
 * The keys and values of a KV head are written once in the order of bf16_tiles.h, in blocks of kBlockColumns tokens. A task takes some rows
 * (tokens x query heads of the group), and walks the blocks with 32 rows at a time. The scores of a panel of 32 keys are multiplied and stored
 * while those of the panel before are weighed, so they stay in the first cache; the values of a block are multiplied at once. Bound by the
 * vector units and by tiles that come from the second cache. */
#pragma once

#include "bf16_tiles.h"
#include "prompt_tile.h"

namespace ps {
namespace PS_ISA {

constexpr int64_t kBlockColumns = 256; /* a multiple of every page size */
constexpr int64_t kBlockPanels = kBlockColumns / kBlockSide;
constexpr int64_t kFewestTaskRows = 128, kMostTaskRows = 512, kTasksPerThread = 4;
constexpr int64_t kPackedBytes = int64_t(32) << 20; /* heads are packed together up to here, so that short contexts keep all threads busy */
constexpr int64_t kOctetNumbers = 8;
constexpr int64_t kPanelScores = kBlockSide * kBlockSide, kColumnScores = kBlockSide * kTileSide;

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

/* The rows of a task, in blocks of 32. */
struct AmxTile {
  bf16 *q;          /* [row blocks, steps, 32, 32], scaled */
  bf16 *weights;    /* [kBlockPanels, 32, 32], of a part */
  float *scores;    /* [2, 2, 32, 16], of a panel and the next */
  float *out;       /* [row blocks, steps, 32, 32] */
  float *total;     /* [rows, 16] */
  float *limit;     /* [rows]: weights are 2^(score - limit); -infinity before the first score */
  int64_t steps, rows, group, first_position;

  static int64_t padded(int64_t rows) { return (rows + kBlockSide - 1) / kBlockSide * kBlockSide; }
  static int64_t bytes(int64_t rows, int64_t steps) {
    const int64_t halves = padded(rows) * steps * kStepInputs + kBlockColumns * kBlockSide;
    const int64_t floats = padded(rows) * (steps * kStepInputs + kLanes + 1) + 2 * kPanelScores;
    return halves * int64_t(sizeof(bf16)) + floats * int64_t(sizeof(float));
  }

  AmxTile(void *memory, int64_t most_rows, int64_t dim_steps) : steps(dim_steps), rows(0), group(0), first_position(0) {
    q = static_cast<bf16 *>(memory);
    weights = q + padded(most_rows) * steps * kStepInputs;
    scores = reinterpret_cast<float *>(weights + kBlockColumns * kBlockSide);
    out = scores + 2 * kPanelScores;
    total = out + padded(most_rows) * steps * kStepInputs;
    limit = total + padded(most_rows) * kLanes;
  }

  int64_t position(int64_t row) const { return first_position + row / group; }
};

/* 32 rows of a task and the panels of a block that they attend to. */
struct AmxPart {
  const bf16 *keys, *values; /* of the block */
  int64_t row, first;        /* the first row; the position of the block's first token */
  int64_t from, to;          /* panels */
};

constexpr float kLog2e = 1.44269504088896341f;

static void start_rows(const AmxTile &tile, const PrefillAttentionParams &p, int64_t head, int64_t token) {
  const int64_t d = p.cache.desc.head_dim, padded = AmxTile::padded(tile.rows);
  for (int64_t row = 0; row < padded; row++) {
    const bool present = row < tile.rows;
    const float *q = p.q.row(token + (present ? row / tile.group : 0)) + (head * tile.group + row % tile.group) * d;
    bf16 *target = tile.q + row / kBlockSide * kBlockSide * tile.steps * kStepInputs + row % kBlockSide * kStepInputs;
    for (int64_t step = 0; step < tile.steps; step++, target += kStepNumbers) {
      Vec first, second;
      load_row(q + step * kStepInputs, present ? d - step * kStepInputs : 0, &first, &second);
      _mm512_storeu_si512(target, narrow(first * (p.scale * kLog2e), second * (p.scale * kLog2e)));
    }
    tile.limit[row] = present ? -__builtin_inff() : 0.f;
    store(tile.total + row * kLanes, Vec{});
  }
  for (int64_t i = 0; i < padded * tile.steps * kStepInputs; i += kLanes) store(tile.out + i, Vec{});
}

/* Numbers below 2^-126 become 0 while this lives. Denormal numbers would take a processor 100 times as long. */
class FlushToZero {
 public:
  FlushToZero() : before_(_mm_getcsr()) { _mm_setcsr(before_ | _MM_FLUSH_ZERO_ON | _MM_DENORMALS_ZERO_ON); }
  ~FlushToZero() { _mm_setcsr(before_); }
  FlushToZero(const FlushToZero &) = delete;
  FlushToZero &operator=(const FlushToZero &) = delete;

 private:
  unsigned before_;
};

/* 2^x to a relative error of 7.5e-5: a 26th of what rounding to bf16 adds. 2^floor(x) is exact, and 0 for -infinity. */
PS_INLINE Vec exp2_weight(Vec x) {
  const Vec r = (Vec)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); /* x - floor(x) */
  Vec p = fma(r, set1(0.07802452264f), set1(0.2260671554f));
  p = fma(p, r, set1(0.6958335405f));
  p = fma(p, r, set1(0.9999252186f));
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)x);
}

/* The scores of 32 rows and a panel, in tile registers 0 to 3 until they are stored: the tile multiplier works beside the vector units. */
PS_INLINE void multiply_scores(int64_t steps, const bf16 *q, const bf16 *keys) {
  asm volatile("" : : : "memory"); /* the intrinsics do not say which memory they read */
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t step = 0; step < steps; step++, q += kStepNumbers, keys += kStepNumbers) {
    _tile_loadd(6, keys, 64);
    _tile_loadd(4, q, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, q + kTileNumbers, 64);
    _tile_dpbf16ps(1, 5, 6);
    _tile_loadd(7, keys + kTileNumbers, 64);
    _tile_dpbf16ps(2, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  }
}

/* Stores one of the four tiles of scores [2, 32, 16]. */
PS_INLINE void store_scores(int tile, float *scores) {
  if (tile == 0) _tile_stored(0, scores, 64);
  else if (tile == 1) _tile_stored(1, scores + kTileSide * kTileSide, 64);
  else if (tile == 2) _tile_stored(2, scores + kColumnScores, 64);
  else _tile_stored(3, scores + kColumnScores + kTileSide * kTileSide, 64);
  asm volatile("" : : : "memory");
}

constexpr int64_t kRowGroup = 4; /* rows whose weights are computed in registers together */

/* Weights up to this size need no new limit: bf16 and f32 have the range. So most rows need no pass for their maximum, and no new scale for
 * earlier sums. */
constexpr float kMostWeight = 0x1p30f;

/* The scores of a row, of which columns outside [begin, end) are masked. */
struct RowScores {
  Vec first, second;

  RowScores(const float *scores) : first(load(scores)), second(load(scores + kColumnScores)) {}

  void mask(int64_t begin, int64_t end) {
    const auto below = [](int64_t column) { return column <= 0 ? uint32_t(0) : column >= kBlockSide ? ~uint32_t(0) : (uint32_t(1) << column) - 1; };
    const uint32_t keep = below(end) & ~below(begin);
    const Vec none = set1(-__builtin_inff());
    first = (Vec)_mm512_mask_mov_ps((__m512)none, static_cast<__mmask16>(keep), (__m512)first);
    second = (Vec)_mm512_mask_mov_ps((__m512)none, static_cast<__mmask16>(keep >> kLanes), (__m512)second);
  }
};

PS_INLINE bool all_below(Vec v, float limit) { return _mm512_cmp_ps_mask((__m512)v, (__m512)set1(limit), _CMP_LT_OQ) == 0xffff; }

/* Numbers of bf16, times a factor. */
PS_INLINE void scale_halves(bf16 *p, float factor) { _mm512_storeu_si512(p, narrow(load(p) * factor, load(p + kLanes) * factor)); }

/* Gives a row the limit that its scores require: their maximum at first, so that the largest weight of a short row is exact. Later it rises by
 * an integer, so that the earlier sums and weights are scaled exactly. */
static __attribute__((noinline)) void raise_limit(const AmxTile &tile, const AmxPart &part, int64_t r, int64_t panel, const RowScores &scores) {
  const float largest = reduce_max(vmax(scores.second, scores.first)), before = tile.limit[part.row + r];
  if (before == -__builtin_inff()) {
    tile.limit[part.row + r] = largest;
    return;
  }
  const float rise = __builtin_ceilf(largest - before), factor = _mm512_cvtss_f32(_mm512_scalef_ps(_mm512_set1_ps(1), _mm512_set1_ps(-rise)));
  tile.limit[part.row + r] = before + rise;
  float *total = tile.total + (part.row + r) * kLanes;
  store(total, load(total) * factor);
  float *out = tile.out + part.row * tile.steps * kStepInputs + r * kBlockSide;
  for (int64_t step = 0; step < tile.steps; step++, out += kPanelScores) {
    store(out, load(out) * factor);
    store(out + kLanes, load(out + kLanes) * factor);
  }
  for (int64_t i = part.from; i < panel; i++) scale_halves(tile.weights + i * kStepNumbers + r * kStepInputs, factor);
}

/* Where the weights of kRowGroup rows of a part and a panel come from and go to. */
struct RowGroup {
  const AmxTile &tile;
  const AmxPart &part;
  int64_t r, panel;    /* the first row within the part */
  int32_t window;
  const float *scores; /* of the panel */

  template <bool Masked>
  RowScores load_scores(int64_t i) const {
    RowScores own(scores + (r + i) * kTileSide);
    if constexpr (Masked) {
      const int64_t place = tile.position(part.row + r + i) - part.first - panel * kBlockSide; /* of the row's own token in the panel */
      own.mask(window > 0 ? place - window + 1 : 0, place + 1);
    }
    return own;
  }
  float limit(int64_t i) const { return tile.limit[part.row + r + i]; }
  void write(int64_t i, Vec first, Vec second, Vec sum) const {
    float *total = tile.total + (part.row + r + i) * kLanes;
    store(total, load(total) + sum);
    _mm512_storeu_si512(tile.weights + panel * kStepNumbers + (r + i) * kStepInputs, narrow(first, second));
  }
};

/* The same as weigh_rows where a row may require a new limit. */
template <bool Masked>
static __attribute__((noinline)) void weigh_rows_by_one(const RowGroup &group) {
  for (int64_t i = 0; i < kRowGroup; i++) {
    const RowScores own = group.load_scores<Masked>(i);
    Vec first = exp2_weight(own.first - group.limit(i)), second = exp2_weight(own.second - group.limit(i));
    if (!all_below(first + second, kMostWeight)) {
      raise_limit(group.tile, group.part, group.r + i, group.panel, own);
      const float limit = group.limit(i) == -__builtin_inff() ? 0.f : group.limit(i);
      first = exp2_weight(own.first - limit);
      second = exp2_weight(own.second - limit);
    }
    group.write(i, first, second, first + second);
  }
}

template <bool Masked>
PS_INLINE void weigh_rows(const RowGroup &group) {
  Vec first[kRowGroup], second[kRowGroup], sum[kRowGroup];
  PS_UNROLL
  for (int64_t i = 0; i < kRowGroup; i++) {
    const RowScores own = group.load_scores<Masked>(i);
    first[i] = exp2_weight(own.first - group.limit(i));
    second[i] = exp2_weight(own.second - group.limit(i));
    sum[i] = first[i] + second[i];
  }
  if (__builtin_expect(!all_below((sum[0] + sum[1]) + (sum[2] + sum[3]), kMostWeight), 0)) return weigh_rows_by_one<Masked>(group);
  PS_UNROLL
  for (int64_t i = 0; i < kRowGroup; i++) group.write(i, first[i], second[i], sum[i]);
}

/* The weights of a panel, while the scores of the next one are stored. */
template <bool Masked>
static void weigh_panel(const AmxTile &tile, const AmxPart &part, int64_t panel, int32_t window, const float *scores, float *next) {
  PS_UNROLL
  for (int i = 0; i < 4; i++) {
    for (int64_t r = 2 * i * kRowGroup; r < (2 * i + 2) * kRowGroup; r += kRowGroup) weigh_rows<Masked>({tile, part, r, panel, window, scores});
    store_scores(i, next);
  }
}

static void attend_part(const AmxTile &tile, const AmxPart &part, int32_t window) {
  const bf16 *q = tile.q + part.row * tile.steps * kStepInputs;
  const int64_t last = (tile.rows - part.row < kBlockSide ? tile.rows : part.row + kBlockSide) - 1, position = tile.position(part.row);
  const int64_t oldest = window > 0 ? tile.position(last) - window + 1 : 0;
  multiply_scores(tile.steps, q, part.keys + part.from * tile.steps * kStepNumbers);
  for (int i = 0; i < 4; i++) store_scores(i, tile.scores);
  int turn = 0;
  for (int64_t panel = part.from; panel < part.to; panel++, turn ^= 1) {
    if (panel + 1 < part.to) multiply_scores(tile.steps, q, part.keys + (panel + 1) * tile.steps * kStepNumbers);
    const int64_t begin = part.first + panel * kBlockSide;
    const bool masked = begin + kBlockSide > position + 1 || begin < oldest;
    float *scores = tile.scores + turn * kPanelScores, *next = tile.scores + (turn ^ 1) * kPanelScores;
    if (masked) weigh_panel<true>(tile, part, panel, window, scores, next);
    else weigh_panel<false>(tile, part, panel, window, scores, next);
  }
  float *out = tile.out + part.row * tile.steps * kStepInputs;
  for (int64_t step = 0; step < tile.steps; step++, out += kPanelScores) {
    multiply_block<2>(part.to - part.from, tile.weights + part.from * kStepNumbers, part.values + (step * kBlockPanels + part.from) * kStepNumbers,
                      out, out);
  }
}

static void attend_tile_amx(const PrefillAttentionParams &p, const PackedHeads &packed, const AmxTile &tile, int64_t head, int64_t packed_head,
                            int64_t token) {
  const TileRegisters registers;
  const FlushToZero flush;
  start_rows(tile, p, head, token);
  const auto oldest = [&](int64_t row) { return p.window > 0 && tile.position(row) - p.window + 1 > 0 ? tile.position(row) - p.window + 1 : 0; };
  const int64_t end = tile.position(tile.rows - 1) + 1;
  for (int64_t block = oldest(0) / kBlockColumns; block * kBlockColumns < end; block++) { /* a block stays in the second cache for all rows */
    const int64_t first = block * kBlockColumns, offset = packed.offset(packed_head, block);
    for (int64_t row = 0; row < tile.rows; row += kBlockSide) {
      const int64_t hidden = oldest(row) - first, rows = tile.rows - row < kBlockSide ? tile.rows - row : kBlockSide;
      const int64_t visible = tile.position(row + rows - 1) + 1 - first, from = hidden > 0 ? hidden / kBlockSide : 0;
      const int64_t to = visible < kBlockColumns ? (visible + kBlockSide - 1) / kBlockSide : kBlockPanels;
      if (from < to) attend_part(tile, {packed.keys + offset, packed.values + offset, row, first, from, to}, p.window);
    }
  }
  const int64_t d = p.cache.desc.head_dim;
  for (int64_t row = 0; row < tile.rows; row++) {
    float *out = p.out.row(token + row / tile.group) + (head * tile.group + row % tile.group) * d;
    const float *sums = tile.out + row / kBlockSide * kBlockSide * tile.steps * kStepInputs + row % kBlockSide * kBlockSide;
    const float total = reduce_add(load(tile.total + row * kLanes));
    for (int64_t i = 0; i < d; i += kLanes) store(out + i, load(sums + i / kBlockSide * kPanelScores + i % kBlockSide) / total);
  }
}

/* Many rows, because a task reads all keys and values once, but such that each thread has several tasks. */
static int64_t task_rows(int64_t rows, int64_t threads) {
  const int64_t share = rows / (threads * kTasksPerThread);
  return share < kFewestTaskRows ? kFewestTaskRows : share < kMostTaskRows ? share : kMostTaskRows;
}

/* For caches whose keys and values are not f32. */
static void attend_packed(ThreadPool &pool, const PrefillAttentionParams &p) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t heads = desc.num_kv_heads, group = desc.num_query_heads / heads, end = p.start + p.tokens;
  PackedHeads packed{};
  packed.steps = (desc.head_dim + kStepInputs - 1) / kStepInputs;
  packed.first_block = p.window > 0 && p.start - p.window + 1 > 0 ? (p.start - p.window + 1) / kBlockColumns : 0;
  packed.blocks = (end + kBlockColumns - 1) / kBlockColumns - packed.first_block;
  const int64_t head_numbers = packed.blocks * packed.block_numbers(), head_bytes = 2 * head_numbers * int64_t(sizeof(bf16));
  const int64_t fitting = kPackedBytes / head_bytes, together = fitting < 1 ? 1 : fitting < heads ? fitting : heads;
  packed.keys = static_cast<bf16 *>(pool.shared_scratch(together * head_bytes));
  packed.values = packed.keys + together * head_numbers;
  const int64_t rows = task_rows(p.tokens * group * together, pool.size()), tile_tokens = rows < group ? 1 : rows / group;
  const int64_t tiles = (p.tokens + tile_tokens - 1) / tile_tokens;
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
      const int64_t token = (tiles - 1 - task % tiles) * tile_tokens, tokens = p.tokens - token < tile_tokens ? p.tokens - token : tile_tokens;
      AmxTile tile(pool.scratch(thread), tile_tokens * group, packed.steps); /* the longest first */
      tile.rows = tokens * group;
      tile.group = group;
      tile.first_position = p.start + token;
      attend_tile_amx(p, packed, tile, first_head + task / tiles, task / tiles, token);
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
