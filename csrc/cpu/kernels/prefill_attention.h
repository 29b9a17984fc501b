/* Causal attention of a chunk of tokens of one sequence over its pages, with an optional sliding window.
 *
 * A task takes one KV head and a tile of tokens: rows = tokens x query heads of the group. It walks the pages in blocks of
 * kColumns tokens, widens each block to f32 once for all rows, and runs both products through the register tile of
 * microkernel.h, with a running maximum and sum per row. Bound by arithmetic. AMX: prefill_attention_amx.h. */
#pragma once

#include "microkernel.h"
#include "prompt_tile.h"
#if defined(__AMX_BF16__)
#include "prefill_attention_amx.h"
#endif

namespace ps {
namespace PS_ISA {

constexpr int64_t kRows = 128;
constexpr int64_t kColumns = 64; /* a multiple of every page size */

/* A task's memory, all f32. */
struct Tile {
  float *q;       /* [kRows, d], scaled */
  float *keys;    /* [d, kColumns] */
  float *values;  /* [kColumns, padded] */
  float *scores;  /* [kRows, kColumns] */
  float *out;     /* [kRows, padded] */
  float *maximum; /* [kRows] */
  float *total;   /* [kRows] */
  int64_t d, padded, rows, group;
  int64_t first_position, tokens; /* of the tile */
};

static int64_t padded_columns(int64_t d) { return (d + kTileColumns - 1) / kTileColumns * kTileColumns; }
static int64_t tile_floats(int64_t rows, int64_t d, int64_t padded) { return rows * (d + kColumns + padded + 2) + kColumns * (d + padded); }

static Tile place_tile(float *memory, int64_t rows, int64_t d, int64_t padded) {
  Tile tile{};
  tile.keys = memory;
  tile.values = tile.keys + d * kColumns;
  tile.scores = tile.values + kColumns * padded;
  tile.out = tile.scores + rows * kColumns;
  tile.q = tile.out + rows * padded;
  tile.maximum = tile.q + rows * d;
  tile.total = tile.maximum + rows;
  tile.d = d;
  tile.padded = padded;
  return tile;
}

static void start_tile(Tile &tile, const PrefillAttentionParams &p, int64_t head, int64_t token) {
  for (int64_t r = 0; r < tile.rows; r++) {
    const float *q = p.q.row(token + r / tile.group) + (head * tile.group + r % tile.group) * tile.d;
    for (int64_t i = 0; i < tile.d; i++) tile.q[r * tile.d + i] = q[i] * p.scale;
    for (int64_t i = 0; i < tile.padded; i++) tile.out[r * tile.padded + i] = 0;
    tile.maximum[r] = -__builtin_inff();
    tile.total[r] = 0;
  }
}

/* Keys and values of positions [first, first + kColumns), zero from `end` on. */
template <typename T>
static void widen_block(const Tile &tile, const PrefillAttentionParams &p, int64_t head, int64_t first, int64_t end) {
  const Layout layout(p.cache.desc);
  for (int64_t start = first; start < first + kColumns; start += layout.page_size) {
    const int64_t column = start - first;
    const int64_t present = end - start < 0 ? 0 : end - start < layout.page_size ? end - start : layout.page_size;
    const int64_t base = present > 0 ? layout.tokens(p.layer, head, p.page_table[start / layout.page_size]) : 0;
    const T *keys = static_cast<const T *>(p.cache.keys) + base, *values = static_cast<const T *>(p.cache.values) + base;
    const int64_t token = kIsScaled<T> && present > 0 ? layout.token(p.layer, head, p.page_table[start / layout.page_size]) : 0;
    auto widen = [](T number, const float *scale) {
      if constexpr (kIsScaled<T>) return to_float(number) * *scale;
      else return to_float(number);
    };
    for (int64_t i = 0; i < tile.d; i++) {
      float *target = tile.keys + i * kColumns + column;
      const float *scales = p.cache.key_scale + token;
      for (int64_t place = 0; place < layout.page_size; place++) {
        target[place] = place < present ? widen(keys[layout.key(place, i)], scales + place) : 0.f;
      }
    }
    for (int64_t place = 0; place < layout.page_size; place++) {
      float *target = tile.values + (column + place) * tile.padded;
      const float *scale = p.cache.value_scale + token + place;
      for (int64_t i = 0; i < tile.padded; i++) target[i] = place < present && i < tile.d ? widen(values[layout.value(place, i)], scale) : 0.f;
    }
  }
}

/* Replaces the scores of one row by weights, and rescales the row's earlier sums when its maximum grows. */
static void weigh_row(const Tile &tile, int64_t r, int64_t first, int32_t window) {
  const int64_t position = tile.first_position + r / tile.group;
  const int64_t begin = window > 0 && position - window + 1 > first ? position - window + 1 - first : 0;
  const int64_t end = position + 1 - first < kColumns ? position + 1 - first : kColumns;
  float *scores = tile.scores + r * kColumns;
  for (int64_t i = 0; i < begin && i < kColumns; i++) scores[i] = -__builtin_inff();
  for (int64_t i = end < 0 ? 0 : end; i < kColumns; i++) scores[i] = -__builtin_inff();
  Vec largest = set1(-__builtin_inff());
  for (int64_t i = 0; i < kColumns; i += kLanes) largest = vmax(load(scores + i), largest);
  const float block_maximum = reduce_max(largest), before = tile.maximum[r];
  const float now = block_maximum > before ? block_maximum : before, limit = now == -__builtin_inff() ? 0.f : now;
  Vec sum{};
  for (int64_t i = 0; i < kColumns; i += kLanes) {
    const Vec s = load(scores + i);
    const Vec weight = (Vec)((VecInt)exp(s - limit) & ~(s == set1(-__builtin_inff())));
    store(scores + i, weight);
    sum += weight;
  }
  if (now > before) {
    const float factor = before == -__builtin_inff() ? 0.f : exp(set1(before - limit))[0];
    tile.maximum[r] = now;
    tile.total[r] *= factor;
    for (int64_t i = 0; i < tile.padded; i += kLanes) store(tile.out + r * tile.padded + i, load(tile.out + r * tile.padded + i) * factor);
  }
  tile.total[r] += reduce_add(sum);
}

template <typename T>
static void attend_tile(const PrefillAttentionParams &p, Tile &tile, int64_t head, int64_t token) {
  start_tile(tile, p, head, token);
  const int64_t end = tile.first_position + tile.tokens;
  const int64_t oldest = p.window > 0 && tile.first_position - p.window + 1 > 0 ? tile.first_position - p.window + 1 : 0;
  for (int64_t first = oldest / kColumns * kColumns; first < end; first += kColumns) {
    widen_block<T>(tile, p, head, first, p.start + p.tokens);
    for (int64_t c = 0; c < kColumns; c += kTileColumns) {
      tile_block(tile.rows, tile.d, tile.q, tile.d, tile.keys + c, kColumns, tile.scores + c, kColumns, false);
    }
    for (int64_t r = 0; r < tile.rows; r++) weigh_row(tile, r, first, p.window);
    for (int64_t c = 0; c < tile.padded; c += kTileColumns) {
      tile_block(tile.rows, kColumns, tile.scores, kColumns, tile.values + c, tile.padded, tile.out + c, tile.padded, true);
    }
  }
  for (int64_t r = 0; r < tile.rows; r++) {
    float *out = p.out.row(token + r / tile.group) + (head * tile.group + r % tile.group) * tile.d;
    for (int64_t i = 0; i < tile.d; i++) out[i] = tile.out[r * tile.padded + i] / tile.total[r];
  }
}

/* The tile of `tile_tokens` tokens from `token` on; `memory` has tile_floats. */
template <typename T>
static void attend_tokens(const PrefillAttentionParams &p, float *memory, int64_t tile_tokens, int64_t head, int64_t token) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t group = desc.num_query_heads / desc.num_kv_heads;
  Tile tile = place_tile(memory, tile_tokens * group, desc.head_dim, padded_columns(desc.head_dim));
  tile.group = group;
  tile.tokens = p.tokens - token < tile_tokens ? p.tokens - token : tile_tokens;
  tile.rows = tile.tokens * group;
  tile.first_position = p.start + token;
  attend_tile<T>(p, tile, head, token);
}

static void prefill_attention(ThreadPool &pool, const PrefillAttentionParams &p) {
  const ps_cache_desc &desc = p.cache.desc;
  if (p.selected) count_prompt_pages(p);
#if defined(__AMX_BF16__)
  if (desc.dtype != PS_F32) return p.selected ? attend_chosen_packed(pool, p) : attend_packed(pool, p);
#endif
  const int64_t heads = desc.num_kv_heads, group = desc.num_query_heads / heads;
  const int64_t tile_tokens = group >= kRows ? 1 : kRows / group, tiles = (p.tokens + tile_tokens - 1) / tile_tokens;
  const int64_t floats = tile_floats(tile_tokens * group, desc.head_dim, padded_columns(desc.head_dim));
  pool.reserve_scratch((floats + (p.selected ? most_tile_pages(p) : 0)) * int64_t(sizeof(float)));
  with_kv_type(desc, [&](auto type) {
    using T = decltype(type);
    if (p.selected) {
      pool.parallel_for(p.tiles().count() * heads, [&](int64_t task, int thread) {
        float *memory = static_cast<float *>(pool.scratch(thread));
        const PrefillAttentionParams call = tile_call(p, task / heads, task % heads, reinterpret_cast<int32_t *>(memory + floats));
        for (int64_t token = 0; token < call.tokens; token += tile_tokens) attend_tokens<T>(call, memory, tile_tokens, task % heads, token);
      });
    } else {
      pool.parallel_for(tiles * heads, [&](int64_t task, int thread) {
        const int64_t token = (tiles - 1 - task / heads) * tile_tokens; /* the longest first */
        attend_tokens<T>(p, static_cast<float *>(pool.scratch(thread)), tile_tokens, task % heads, token);
      });
    }
  });
}

}  // namespace PS_ISA
}  // namespace ps
