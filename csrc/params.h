/* One struct per operation: what the checked C call hands to a backend. Shapes are in brackets; strides count elements.
 * Pointers are device pointers. Letters as in include/pagesift.h. */
#pragma once

#include <cstdint>

#include "include/pagesift.h"

/* Structs go to CUDA kernels as they are, so their functions must run there too. */
#if defined(__CUDACC__)
#define PS_HOST_DEVICE __host__ __device__
#else
#define PS_HOST_DEVICE
#endif

namespace ps {

/* A matrix whose rows are contiguous and lie `stride` elements apart. */
template <typename T>
struct Rows {
  T *data;
  int64_t stride;
  PS_HOST_DEVICE T *row(int64_t index) const { return data + index * stride; }
};

/* Numbers stored as f32, f16 or bf16; where an operation takes them, also in blocks (block_formats.h). */
struct Typed {
  const void *data;
  int64_t stride; /* elements per row */
  ps_dtype dtype;
};

struct ScanParams {
  const uint32_t *words; /* [count] */
  int64_t count;
  uint32_t *out; /* [1], in main memory */
};

struct WeightWriteParams {
  Typed weight; /* [rows, inputs], in a block format */
  int64_t rows, inputs, first_row, count;
  const void *source; /* [count, inputs] in main memory, of weight.dtype in GGUF's layout, without gaps */
};

struct EmbeddingParams {
  const int32_t *ids; /* [tokens], checked by the backend against vocabulary */
  Typed table;        /* [vocabulary, width] */
  Rows<float> out;    /* [tokens, width] */
  int64_t tokens, vocabulary, width;
};

struct RmsNormParams {
  Rows<const float> x; /* [tokens, heads * width] */
  Typed weight;        /* [width] */
  Rows<float> out;     /* [tokens, heads * width] */
  int64_t tokens, heads, width;
  float eps;
};

struct AddRmsNormParams {
  Rows<float> x;       /* [tokens, width], in place */
  Rows<const float> y; /* [tokens, width] */
  RmsNormParams norm;  /* of x */
};

struct RopeTableParams {
  const int32_t *positions; /* [tokens] */
  const float *inv_freq;    /* [pairs] */
  Rows<float> out;          /* [tokens, 2 * pairs], cosines then sines */
  int64_t tokens, pairs;
  float scale, position_beta;
  int32_t position_origin;
};

struct RopeParams {
  Rows<float> x;           /* [tokens, heads * head_dim], in place */
  Rows<const float> table; /* [tokens, 2 * pairs] */
  int64_t tokens, heads, head_dim, pairs;
};

/* An activation of gate, times up. */
struct GatedParams {
  Rows<const float> gate, up; /* [tokens, width] */
  Rows<float> out;            /* [tokens, width] */
  int64_t tokens, width;
};

struct MatmulParams {
  Rows<const float> x; /* [tokens, inputs] */
  Typed weight;        /* [outputs, inputs] */
  Typed bias;          /* [outputs], data may be nullptr */
  Rows<float> out;     /* [tokens, outputs] */
  int64_t tokens, inputs, outputs;
};

/* The norm of x, a product, and its ending. */
struct FusedMatmulParams {
  MatmulParams matmul; /* out: [tokens, outputs / 2] where the ending multiplies gates */
  Typed norm;          /* [inputs], data may be nullptr */
  float eps;
  ps_ending ending;
  Rows<float> normed;  /* [tokens, inputs], scratch; with a norm */
  Rows<float> product; /* [tokens, outputs], scratch; unless the ending is PS_STORE */
  Typed next_norm;         /* [outputs], data may be nullptr: the norm of the fused product that follows and takes out */
  Rows<float> next_normed; /* [tokens, outputs], its scratch */
};

struct AddParams {
  Rows<float> x;       /* [tokens, width], in place */
  Rows<const float> y; /* [tokens, width] */
  int64_t tokens, width;
};

struct ScaleParams {
  Rows<float> x; /* [tokens, width], in place */
  int64_t tokens, width;
  float factor;
};

struct ArgmaxParams {
  Rows<const float> x; /* [tokens, width] */
  int32_t *out;        /* [tokens] */
  int64_t tokens, width;
};

struct SampleParams {
  Rows<const float> logits; /* [tokens, width] */
  const float *settings;    /* [tokens, 4]: temperature, top_p, min_p, top_k */
  const float *draws;       /* [tokens] */
  int32_t *out;             /* [tokens] */
  int64_t tokens, width;
};

struct RouteExpertsParams {
  Rows<const float> logits; /* [tokens, experts] */
  Rows<int32_t> chosen;     /* [tokens, k] */
  Rows<float> weights;      /* [tokens, k] */
  int64_t tokens, experts, k;
  bool normalize;
};

struct ScatterAddParams {
  Rows<const float> x;  /* [count, width] */
  const int32_t *rows;  /* [count], checked by the backend against tokens */
  const float *weights; /* [count] */
  Rows<float> out;      /* [tokens, width] */
  int64_t count, tokens, width;
};

/* The memory of a KV cache. Every pool is cut into [layers, Hk, pages, ...]; how one page lies inside is the backend's. */
struct CacheView {
  ps_cache_desc desc;
  void *keys, *values;              /* S * d numbers per page and head, of desc.dtype or of desc.kv_type */
  float *key_scale, *value_scale;   /* S numbers per page and head, or nullptr; then numbers of 8 bits are to be multiplied by them */
  void *mean, *variance, *min, *max; /* d numbers of desc.dtype; variance, min and max may be nullptr */
  float *std;                       /* 1 number */
  float *mean_scale;                /* 1 number, or nullptr; then means are e4m3, to be multiplied by it */
  uint8_t *coarse;                  /* 1 row of coarse_statistics.h, or nullptr */
  uint32_t *coarse_scale;           /* its scales, or nullptr */
  void *group_mean;                 /* [layers, Hk, pages / group_pages, d] of desc.dtype, or nullptr */
  float *group_std;                 /* [layers, Hk, pages / group_pages], or nullptr */
  void *scratch;                    /* cache_scratch_bytes(desc) */
  ps_counters *counters;            /* device memory */
};

struct AppendKvParams {
  CacheView cache;
  Rows<const float> k, v; /* [tokens, Hk * d] */
  const int32_t *slots;   /* [tokens], checked by the backend against the pool */
  int64_t tokens;
  int32_t layer;
};

struct AppendRotatedParams {
  AppendKvParams append; /* its k is the one below, as it comes */
  Rows<float> q, k;      /* [tokens, Hq * d], [tokens, Hk * d] */
  Typed q_norm, k_norm;  /* [d], data nullptr where heads are not normed */
  Rows<const float> q_table, k_table; /* [tokens, 2 * pairs] */
  int64_t pairs;
  float eps;
};

struct PageStatisticsParams {
  CacheView cache;
  int32_t page, num_tokens;
};

/* The page tables of B sequences. */
struct SequencesView {
  const int32_t *page_table; /* [sequences, table_stride] physical pages, checked by the backend against the pool */
  const int32_t *lengths;    /* [sequences] tokens, checked by the backend against max_pages */
  int64_t sequences, table_stride, max_pages;
};

struct PageScoreParams {
  CacheView cache;
  SequencesView sequences;
  Rows<const float> q; /* [sequences, Hq * d] */
  float *scores;       /* [sequences, Hk, max_pages] */
  int32_t layer;
  ps_scorer scorer;
  float lambda;
};

struct PageSelectParams {
  CacheView cache;
  SequencesView sequences; /* page_table is not read */
  const float *scores;     /* [sequences, Hk, max_pages] */
  int32_t *selected;       /* [sequences, Hk, k] */
  int32_t *counts;         /* [sequences, Hk] */
  int64_t k;
  int32_t sink_pages, recent_pages;
};

/* The scores are scratch; pages of the two parts are the same. */
struct PageChooseParams {
  PageScoreParams score;
  PageSelectParams select;
};

struct DecodeAttentionParams {
  CacheView cache;
  SequencesView sequences;
  Rows<const float> q;     /* [sequences, Hq * d] */
  const int32_t *selected; /* [sequences, Hk, k] logical pages, or nullptr for all */
  const int32_t *counts;   /* [sequences, Hk], or nullptr */
  Rows<float> out;         /* [sequences, Hq * d] */
  int64_t k;
  int32_t layer, window;
  float scale;
};

struct PageMassParams {
  CacheView cache;
  SequencesView sequences;
  Rows<const float> q; /* [sequences, Hq * d] */
  float *mass;         /* [sequences, Hq, max_pages] */
  int32_t layer, window;
  float scale;
};

/* Chosen and attended pages are the same. */
struct SparseAttentionParams {
  PageChooseParams choose;
  DecodeAttentionParams attend;
};

/* The tiles of a chunk of consecutive tokens: those at positions [i * tile_tokens, (i + 1) * tile_tokens). */
struct PrefillTiles {
  int64_t start, tokens, tile_tokens;

  PS_HOST_DEVICE int64_t count() const { return (start + tokens - 1) / tile_tokens - start / tile_tokens + 1; }
  /* First token of a tile, and the one behind its last, in the chunk. */
  PS_HOST_DEVICE int64_t first(int64_t tile) const { return tile == 0 ? 0 : boundary(tile); }
  PS_HOST_DEVICE int64_t end(int64_t tile) const { return boundary(tile + 1) < tokens ? boundary(tile + 1) : tokens; }
  PS_HOST_DEVICE int64_t boundary(int64_t tile) const { return (start / tile_tokens + tile) * tile_tokens - start; }
};

/* Tokens of a tile whose queries score pages, at equal distances. */
constexpr int64_t kSampledTokens = 16;
PS_HOST_DEVICE constexpr int64_t sampled_tokens(int64_t tokens) { return tokens < kSampledTokens ? tokens : kSampledTokens; }
PS_HOST_DEVICE constexpr int64_t sampled_token(int64_t tokens, int64_t sample) { return (sample + 1) * tokens / sampled_tokens(tokens) - 1; }

struct PrefillChooseParams {
  CacheView cache;
  PrefillTiles tiles;
  Rows<const float> q;       /* [tokens, Hq * d] */
  const int32_t *page_table; /* [max_pages], checked by the backend against the pool */
  int32_t *selected;         /* [tiles, Hk, k] */
  int32_t *counts;           /* [tiles, Hk] */
  int64_t k;
  int32_t layer, sink_pages, recent_pages;
  ps_scorer scorer;
  float lambda, scale;
};

struct PrefillAttentionParams {
  CacheView cache;
  Rows<const float> q;       /* [tokens, Hq * d] */
  const int32_t *page_table; /* [max_pages], checked by the backend against the pool */
  Rows<float> out;           /* [tokens, Hq * d] */
  int64_t tokens, max_pages, start;
  int32_t layer, window;
  float scale;
  const int32_t *selected = nullptr; /* [tiles, Hk, k] logical pages before a tile, or nullptr for all; checked by the backend */
  const int32_t *counts = nullptr;   /* [tiles, Hk] */
  int64_t k = 0, tile_tokens = 0;

  PS_HOST_DEVICE PrefillTiles tiles() const { return {start, tokens, tile_tokens}; }
};

}  // namespace ps
