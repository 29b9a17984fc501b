/** The functions of `csrc/include/pagesift.h` that work on a KV cache, in its order; part of the table in `symbols.ts`. */
export const cacheSymbols = {
  ps_cache_measure: {
    parameters: [
      "pointer", // ps_device *device
      "buffer", // const ps_cache_desc *desc
      "buffer", // ps_cache_bytes *out
    ],
    result: "i32",
  },
  ps_cache_create: {
    parameters: [
      "pointer", // ps_device *device
      "buffer", // const ps_cache_desc *desc
      "buffer", // ps_cache **out
    ],
    result: "i32",
  },
  ps_cache_close: { parameters: ["pointer" /* ps_cache *cache */], result: "i32" },
  ps_append_kv: {
    parameters: [
      "pointer", // ps_cache *cache
      "i32", // int32_t layer
      "buffer", // const ps_tensor *k
      "buffer", // const ps_tensor *v
      "buffer", // const ps_tensor *slots
    ],
    result: "i32",
  },
  ps_append_rotated: {
    parameters: [
      "pointer", // ps_cache *cache
      "i32", // int32_t layer
      "f32", // float eps
      "buffer", // const ps_tensor *q_norm
      "buffer", // const ps_tensor *k_norm
      "buffer", // const ps_tensor *q_table
      "buffer", // const ps_tensor *k_table
      "buffer", // const ps_tensor *q
      "buffer", // const ps_tensor *k
      "buffer", // const ps_tensor *v
      "buffer", // const ps_tensor *slots
    ],
    result: "i32",
  },
  ps_page_statistics: {
    parameters: [
      "pointer", // ps_cache *cache
      "i32", // int32_t page
      "i32", // int32_t num_tokens
    ],
    result: "i32",
  },
  ps_page_score: {
    parameters: [
      "pointer", // ps_cache *cache
      "i32", // int32_t layer
      "i32", // int32_t scorer
      "f32", // float lambda
      "buffer", // const ps_tensor *q
      "buffer", // const ps_tensor *page_table
      "buffer", // const ps_tensor *lengths
      "buffer", // const ps_tensor *scores
    ],
    result: "i32",
  },
  ps_page_select: {
    parameters: [
      "pointer", // ps_cache *cache
      "i32", // int32_t sink_pages
      "i32", // int32_t recent_pages
      "buffer", // const ps_tensor *scores
      "buffer", // const ps_tensor *lengths
      "buffer", // const ps_tensor *selected
      "buffer", // const ps_tensor *counts
    ],
    result: "i32",
  },
  ps_page_choose: {
    parameters: [
      "pointer", // ps_cache *cache
      "i32", // int32_t layer
      "i32", // int32_t scorer
      "f32", // float lambda
      "i32", // int32_t sink_pages
      "i32", // int32_t recent_pages
      "buffer", // const ps_tensor *q
      "buffer", // const ps_tensor *page_table
      "buffer", // const ps_tensor *lengths
      "buffer", // const ps_tensor *scores
      "buffer", // const ps_tensor *selected
      "buffer", // const ps_tensor *counts
    ],
    result: "i32",
  },
  ps_decode_attention: {
    parameters: [
      "pointer", // ps_cache *cache
      "i32", // int32_t layer
      "f32", // float scale
      "i32", // int32_t window
      "buffer", // const ps_tensor *q
      "buffer", // const ps_tensor *page_table
      "buffer", // const ps_tensor *lengths
      "buffer", // const ps_tensor *selected
      "buffer", // const ps_tensor *counts
      "buffer", // const ps_tensor *out
    ],
    result: "i32",
  },
  ps_page_mass: {
    parameters: [
      "pointer", // ps_cache *cache
      "i32", // int32_t layer
      "f32", // float scale
      "i32", // int32_t window
      "buffer", // const ps_tensor *q
      "buffer", // const ps_tensor *page_table
      "buffer", // const ps_tensor *lengths
      "buffer", // const ps_tensor *mass
    ],
    result: "i32",
  },
  ps_sparse_attention: {
    parameters: [
      "pointer", // ps_cache *cache
      "i32", // int32_t layer
      "i32", // int32_t scorer
      "f32", // float lambda
      "i32", // int32_t sink_pages
      "i32", // int32_t recent_pages
      "f32", // float scale
      "buffer", // const ps_tensor *q
      "buffer", // const ps_tensor *page_table
      "buffer", // const ps_tensor *lengths
      "buffer", // const ps_tensor *scores
      "buffer", // const ps_tensor *selected
      "buffer", // const ps_tensor *counts
      "buffer", // const ps_tensor *out
    ],
    result: "i32",
  },
  ps_prefill_attention: {
    parameters: [
      "pointer", // ps_cache *cache
      "i32", // int32_t layer
      "f32", // float scale
      "i32", // int32_t window
      "i32", // int32_t start
      "buffer", // const ps_tensor *q
      "buffer", // const ps_tensor *page_table
      "buffer", // const ps_tensor *out
    ],
    result: "i32",
  },
  ps_cache_read: {
    parameters: [
      "pointer", // ps_cache *cache
      "i32", // int32_t layer
      "i32", // int32_t page
      "i32", // int32_t field
      "buffer", // float *out
      "i64", // int64_t num_floats
    ],
    result: "i32",
  },
  ps_cache_counters: {
    parameters: [
      "pointer", // ps_cache *cache
      "buffer", // ps_counters *out
    ],
    result: "i32",
  },
  ps_cache_reset_counters: { parameters: ["pointer" /* ps_cache *cache */], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;
