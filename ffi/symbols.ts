// Generated from csrc/include/pagesift.h; after a change there, run "deno run -A scripts/gate/abi.ts --write".

export const ABI_VERSION = 14;

/** What a native call returned. */
export enum Status {
  Ok = 0,
  InvalidArgument = 1,
  OutOfMemory = 2,
  NoDevice = 3,
  Unsupported = 4,
  DeviceError = 5,
  Internal = 6,
}

/** The other enums, without the prefix that their names share. */
export const ENUMS = {
  ps_backend: { cpu: 0, cuda: 1 },
  ps_dtype: {
    f32: 0,
    f16: 1,
    bf16: 2,
    i32: 3,
    q8_0: 4,
    q4_0: 5,
    q4_1: 6,
    q5_0: 7,
    q5_1: 8,
    q4_k: 9,
    q5_k: 10,
    q6_k: 11,
    f8: 12,
  },
  ps_kv_type: { dtype: 0, q8: 1, fp8: 2 },
  ps_scorer: { unique: 0, diag: 1, quest: 2, mean: 3 },
  ps_ending: { store: 0, add: 1, silu_mul: 2, gelu_mul: 3 },
  ps_statistics: { variance: 1, min_max: 2, f8: 4, coarse: 8 },
  ps_cache_field: { keys: 0, values: 1, mean: 2, std: 3, var: 4, min: 5, max: 6 },
} as const;

/** Size of every struct, in the order of `ps_struct_bytes`. */
export const STRUCT_BYTES = {
  ps_tensor: 56,
  ps_device_options: 8,
  ps_device_info: 104,
  ps_cache_desc: 56,
  ps_cache_bytes: 32,
  ps_counters: 72,
} as const;

/** Where the fields of every struct begin, in bytes. */
export const OFFSETS = {
  ps_tensor: { buffer: 0, offset_bytes: 8, row_stride: 16, shape: 24, rank: 48, dtype: 52 },
  ps_device_options: { index: 0, num_threads: 4 },
  ps_device_info: {
    total_bytes: 0,
    available_bytes: 8,
    allocated_bytes: 16,
    backend: 24,
    num_threads: 28,
    records: 32,
    capability: 36,
    name: 40,
  },
  ps_cache_desc: {
    num_pages: 0,
    max_pages_per_sequence: 8,
    num_layers: 16,
    num_query_heads: 20,
    num_kv_heads: 24,
    head_dim: 28,
    page_size: 32,
    dtype: 36,
    statistics: 40,
    max_sequences: 44,
    group_pages: 48,
    kv_type: 52,
  },
  ps_cache_bytes: { kv: 0, statistics: 8, scratch: 16, unit: 24 },
  ps_counters: {
    rows_selected: 0,
    pages_scored: 8,
    pages_attended: 16,
    pages_in_context: 24,
    selections: 32,
    prompt_pages_scored: 40,
    prompt_pages_attended: 48,
    prompt_pages_visible: 56,
    copies_scored: 64,
  },
} as const;

/** The functions. Handles and structs are passed as pointers or buffers. */
export const symbols = {
  ps_abi_version: { parameters: [], result: "i32" },
  /**
   * Size of a struct of this header in bytes, by its number: 0 ps_tensor, 1 ps_device_options, 2 ps_device_info,
   * 3 ps_cache_desc, 4 ps_cache_bytes, 5 ps_counters; -1 for any other number.
   * (which)
   */
  ps_struct_bytes: { parameters: ["i32"], result: "i32" },
  /** Number of open devices, buffers, caches and graphs. */
  ps_live_handles: { parameters: [], result: "i64" },
  /**
   * Why the latest failed call of this thread failed, truncated to `bytes`, NUL-terminated; empty if no call has failed.
   * (out, bytes)
   */
  ps_error_message: { parameters: ["buffer", "i32"], result: "i32" },
  /**
   * message [message_bytes]: receives the reason for a failure, NUL-terminated; may be NULL.
   * (options, out, message, message_bytes)
   */
  ps_device_open: { parameters: ["buffer", "buffer", "buffer", "i32"], result: "i32" },
  /**
   * Returns PS_INVALID_ARGUMENT while children are open.
   * (device)
   */
  ps_device_close: { parameters: ["pointer"], result: "i32" },
  /** (device, out) */
  ps_device_describe: { parameters: ["pointer", "buffer"], result: "i32" },
  /**
   * Waits until all work of the device is done. May run on a thread that the caller does not control: message [message_bytes] receives
   * the reason for a failure, NUL-terminated; may be NULL.
   * (device, message, message_bytes)
   */
  ps_device_wait: { parameters: ["pointer", "buffer", "i32"], result: "i32", nonblocking: true },
  /**
   * The bytes of a new buffer are zero.
   * (device, bytes, out)
   */
  ps_buffer_create: { parameters: ["pointer", "i64", "buffer"], result: "i32" },
  /** (buffer) */
  ps_buffer_close: { parameters: ["pointer"], result: "i32" },
  /** (buffer, offset_bytes, source, bytes) */
  ps_buffer_write: { parameters: ["pointer", "i64", "buffer", "i64"], result: "i32" },
  /** (buffer, offset_bytes, target, bytes) */
  ps_buffer_read: { parameters: ["pointer", "i64", "buffer", "i64"], result: "i32" },
  /**
   * Starts to read 1 to 1,024 bytes for ps_read_finish. Work that is started afterwards does not delay it. At most 4 reads are under way per device.
   * (buffer, offset_bytes, bytes)
   */
  ps_read_start: { parameters: ["pointer", "i64", "i64"], result: "i32" },
  /**
   * Waits for the oldest read that was started, and writes its bytes, as many, to target. An index that an operation refused is reported as by
   * ps_buffer_read, except a token id of -1: that is what ps_argmax and ps_sample write for a row without a token, and the next step reads.
   * (device, target, bytes)
   */
  ps_read_finish: { parameters: ["pointer", "buffer", "i64"], result: "i32" },
  /**
   * Reads the whole buffer as fast as the device can and writes the exclusive or of its 32-bit words to `out`, to measure bandwidth.
   * (buffer, out)
   */
  ps_buffer_scan: { parameters: ["pointer", "buffer"], result: "i32" },
  /**
   * Until ps_graph_end, operations are recorded instead of run. They read positions, lengths and tables from device memory when the
   * graph is launched. Meanwhile, calls that allocate, copy or wait are refused. PS_UNSUPPORTED on the CPU.
   * (device)
   */
  ps_graph_begin: { parameters: ["pointer"], result: "i32" },
  /**
   * Ends a recording. If a recorded call failed, this call fails too and creates nothing.
   * (device, out)
   */
  ps_graph_end: { parameters: ["pointer", "buffer"], result: "i32" },
  /**
   * Runs the recorded operations. The buffers and caches that they use must still be open.
   * (graph)
   */
  ps_graph_launch: { parameters: ["pointer"], result: "i32" },
  /** (graph) */
  ps_graph_close: { parameters: ["pointer"], result: "i32" },
  /**
   * Writes rows [first_row, first_row + rows) of a weight [N, K] or [N]. source: the rows without gaps in main memory, source_bytes bytes
   * in all. A source of the weight's own dtype is stored bit for bit. Otherwise the source is f32, f16 or bf16 and is rounded to nearest,
   * or quantised as ggml's reference quantiser does: to q8_0, q4_0, q4_1, q5_0 and q5_1, from numbers up to 65504; PS_UNSUPPORTED for the
   * other block formats. A build may arrange block-format rows in its own way in the same bytes: only the operations below can read them.
   * (device, weight, first_row, rows, source_dtype, source, source_bytes)
   */
  ps_weight_write: { parameters: ["pointer", "buffer", "i64", "i64", "i32", "buffer", "i64"], result: "i32" },
  /**
   * out[t] = table[ids[t]]. ids [T] i32, each in [0, V); table [V, H]; out [T, H]. Exact, also from a block format.
   * (device, ids, table, out)
   */
  ps_embedding: { parameters: ["pointer", "buffer", "buffer", "buffer"], result: "i32" },
  /**
   * out = x / sqrt(mean(x^2) + eps) * weight over the last dimension n. x, out [T, n] or [T, heads, n]; weight [n]; out may be x.
   * (device, x, weight, eps, out)
   */
  ps_rms_norm: { parameters: ["pointer", "buffer", "buffer", "f32", "buffer"], result: "i32" },
  /**
   * x += y, then the norm of x. x, y, out [T, n]; weight [n]; out is neither x nor y.
   * (device, x, y, weight, eps, out)
   */
  ps_add_rms_norm: { parameters: ["pointer", "buffer", "buffer", "buffer", "f32", "buffer"], result: "i32" },
  /**
   * Cosines then sines of positions[t] * inv_freq[i], times
   *   scale * (1 + position_beta * ln(1 + floor(positions[t] / position_origin)));  position_beta 0 makes the second factor 1.
   * positions [T] i32; inv_freq [r/2] f32; out [T, r] f32.
   * (device, positions, inv_freq, scale, position_beta, position_origin, out)
   */
  ps_rope_table: { parameters: ["pointer", "buffer", "buffer", "f32", "f32", "i32", "buffer"], result: "i32" },
  /**
   * Rotates the first r of the d numbers of every head in place, in pairs (i, i + r/2). x [T, heads, d]; table [T, r].
   * (device, x, table)
   */
  ps_rope: { parameters: ["pointer", "buffer", "buffer"], result: "i32" },
  /**
   * out = silu(gate) * up. gate, up, out [T, n].
   * (device, gate, up, out)
   */
  ps_silu_mul: { parameters: ["pointer", "buffer", "buffer", "buffer"], result: "i32" },
  /**
   * out = x * weight^T + bias. x [T, K]; weight [N, K]; bias [N], may be NULL; out [T, N]. Up to 16 tokens with a weight in a block format, the
   * error per block of 32 numbers is at most 1/254 of the largest |x| of the block, times the sum of |weight| over it: the CPU build rounds x
   * to 15 bits there and stays far below; the CUDA build rounds weights and x to f16. For more tokens, the CUDA build and the CPU build with
   * AMX round x and weights in blocks to bf16, with an error of at most 1/127 of the sum of |x * weight|. With AMX, x goes in as two parts of
   * bf16 (16 bits) for 17 to 256 tokens, and is rounded to bf16 for more, also for bf16 weights. On arm64 with bf16 instructions, both are
   * rounded to bf16 for more than 256 tokens only.
   * (device, x, weight, bias, out)
   */
  ps_matmul: { parameters: ["pointer", "buffer", "buffer", "buffer", "buffer"], result: "i32" },
  /**
   * ps_rms_norm of x by `norm`, then ps_matmul, then what `ending` says, in one call: what surrounds the products of a decode step. norm [K] and
   * normed [T, K], both NULL or neither; product [T, N], NULL for PS_STORE. x [T, K]; weight [N, K]; bias [N], may be NULL; out [T, N], for
   * PS_SILU_MUL and PS_GELU_MUL [T, N / 2]. out is none of the others. `normed` and `product` are scratch: their contents are undefined
   * afterwards. next_norm [N] and next_normed [T, N], both NULL or neither and only with PS_ADD, say what follows: a ps_fused_matmul whose x, norm and
   * normed are out, next_norm and next_normed, with the same eps. That may come sooner then, and differ by rounding; if something else follows,
   * nothing is lost. The CUDA build computes one token in one launch.
   * (device, x, norm, eps, weight, bias, ending, normed, product, out, next_norm, next_normed)
   */
  ps_fused_matmul: {
    parameters: [
      "pointer",
      "buffer",
      "buffer",
      "f32",
      "buffer",
      "buffer",
      "i32",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
    ],
    result: "i32",
  },
  /**
   * x += y. x, y [T, n].
   * (device, x, y)
   */
  ps_add: { parameters: ["pointer", "buffer", "buffer"], result: "i32" },
  /**
   * The index of the largest number of each row, the lowest index on ties; -1 for a row with a NaN or an infinite maximum.
   * x [T, n]; out [T] i32.
   * (device, x, out)
   */
  ps_argmax: { parameters: ["pointer", "buffer", "buffer"], result: "i32" },
  /**
   * Draws a token for each row; -1 for a row with a NaN or an infinite maximum, or whose temperature is not above 0. Tokens rank by logit, on
   * ties by lower id; max is the largest logit. In this order:
   *   top_k  keeps the k best; 0 keeps all
   *   top_p  keeps the fewest of the best whose exp(logit - max) sum to at least top_p of the total, at least one; 1 keeps all
   *   min_p  keeps those with logit >= max + ln(min_p), and always the best; 0 keeps all
   *   draw   selects the first whose running sum of exp((logit - max) / temperature) exceeds draw * the total, in descending rank if
   *          top_k, top_p or min_p filters, else in ascending id. Logits of -infinity are never drawn.
   * Exponentials are rounded to multiples of 2^-40, so that sums do not depend on their order: both builds draw the same token.
   * logits [T, V] f32, V up to 2^23; settings [T, 4] f32: temperature > 0, top_p, min_p, whole top_k; draws [T] f32 in [0, 1); out [T] i32.
   * (device, logits, settings, draws, out)
   */
  ps_sample: { parameters: ["pointer", "buffer", "buffer", "buffer", "buffer"], result: "i32" },
  /**
   * The k largest values of the softmax of each row, in descending order, on ties by lower index; normalize: scaled to sum to 1.
   * logits [T, E]; experts [T, k] i32; weights [T, k] f32.
   * (device, logits, normalize, experts, weights)
   */
  ps_route_experts: { parameters: ["pointer", "buffer", "i32", "buffer", "buffer"], result: "i32" },
  /**
   * out[rows[i]] += weights[i] * x[i]. x [N, n]; rows [N] i32, each in [0, T), no duplicates; weights [N]; out [T, n].
   * (device, x, rows, weights, out)
   */
  ps_scatter_add: { parameters: ["pointer", "buffer", "buffer", "buffer", "buffer"], result: "i32" },
  /**
   * out = gelu(gate) * up, with the tanh form of gelu: gelu(x) = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))).
   * gate, up, out [T, n].
   * (device, gate, up, out)
   */
  ps_gelu_mul: { parameters: ["pointer", "buffer", "buffer", "buffer"], result: "i32" },
  /**
   * x *= factor. x [T, n].
   * (device, x, factor)
   */
  ps_scale: { parameters: ["pointer", "buffer", "f32"], result: "i32" },
  /**
   * The memory that a cache of this description takes; checks the description.
   * (device, desc, out)
   */
  ps_cache_measure: { parameters: ["pointer", "buffer", "buffer"], result: "i32" },
  /** (device, desc, out) */
  ps_cache_create: { parameters: ["pointer", "buffer", "buffer"], result: "i32" },
  /** (cache) */
  ps_cache_close: { parameters: ["pointer"], result: "i32" },
  /**
   * Stores keys and values and updates the statistics of every page written to, from the keys as stored: such a page then contains
   * the tokens up to the last one written to it. A slot is physical page * S + position in the page; the slots of one page must
   * ascend within a call. k, v [T, Hk, d] f32; slots [T] i32.
   * (cache, layer, k, v, slots)
   */
  ps_append_kv: { parameters: ["pointer", "i32", "buffer", "buffer", "buffer"], result: "i32" },
  /**
   * All steps between a layer's projections and its attention in one call: ps_rms_norm of every head of q by q_norm and of k by k_norm,
   * ps_rope of q by q_table and of k by k_table, ps_append_kv of k and v. q is changed in place; the contents of k are undefined afterwards.
   * q [T, Hq, d], k, v [T, Hk, d] f32; q_norm, k_norm [d], both NULL or neither; tables [T, r] f32; slots [T] i32.
   * (cache, layer, eps, q_norm, k_norm, q_table, k_table, q, k, v, slots)
   */
  ps_append_rotated: {
    parameters: [
      "pointer",
      "i32",
      "f32",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
    ],
    result: "i32",
  },
  /**
   * Recomputes the statistics of one physical page in all layers over its first num_tokens tokens (after a truncation).
   * (cache, page, num_tokens)
   */
  ps_page_statistics: { parameters: ["pointer", "i32", "i32"], result: "i32" },
  /**
   * scores[b, j, p] = the largest score of page p over the query heads of KV head j (tests/fixtures/unique_reference.py, page_scores).
   * q [B, Hq, d]; page_table [B, M] i32 physical pages; lengths [B] i32 tokens in the cache; scores [B, Hk, M] f32, written for
   * p < P = ceil(length / S).
   * (cache, layer, scorer, lambda, q, page_table, lengths, scores)
   */
  ps_page_score: {
    parameters: ["pointer", "i32", "i32", "f32", "buffer", "buffer", "buffer", "buffer"],
    result: "i32",
  },
  /**
   * Selects k pages per row, ascending; k is the last dimension of `selected`. P <= k: every page. Otherwise the last recent_pages,
   * then the first sink_pages, are always selected, then the pages with the highest scores, on ties the lower page; NaN ranks below
   * every number. scores [B, Hk, M]; lengths [B] i32; selected [B, Hk, k] i32; counts [B, Hk] i32.
   * (cache, sink_pages, recent_pages, scores, lengths, selected, counts)
   */
  ps_page_select: { parameters: ["pointer", "i32", "i32", "buffer", "buffer", "buffer", "buffer"], result: "i32" },
  /**
   * ps_page_score and ps_page_select in one faster call. For PS_UNIQUE and PS_MEAN, a cache with groups scores the groups first, then only
   * the pages of the best groups, and those of the newest group unless recent_pages is 0: it can miss a page whose group scores low. Otherwise
   * a cache with coarse copies scores all pages by them, except for PS_QUEST, and the best 2 k again: it can miss a page whose copy scores far
   * too low. `scores` [B, Hk, M] f32 is scratch. The other arguments are those of the two calls.
   * (cache, layer, scorer, lambda, sink_pages, recent_pages, q, page_table, lengths, scores, selected, counts)
   */
  ps_page_choose: {
    parameters: [
      "pointer",
      "i32",
      "i32",
      "f32",
      "i32",
      "i32",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
    ],
    result: "i32",
  },
  /**
   * Attention of one query per sequence over the selected pages, or over all pages when `selected` and `counts` are NULL.
   * window > 0: only the last `window` tokens; refused together with a selection. q.k is multiplied by scale.
   * q, out [B, Hq, d] f32; page_table [B, M] i32; lengths [B] i32; selected [B, Hk, k] i32 logical pages; counts [B, Hk] i32.
   * (cache, layer, scale, window, q, page_table, lengths, selected, counts, out)
   */
  ps_decode_attention: {
    parameters: ["pointer", "i32", "f32", "i32", "buffer", "buffer", "buffer", "buffer", "buffer", "buffer"],
    result: "i32",
  },
  /**
   * ps_append_rotated, then ps_decode_attention over all pages, in one call; `lengths` count the appended tokens. The contents of q and k are
   * undefined afterwards. The other arguments are those of the two calls.
   * (cache, layer, eps, q_norm, k_norm, q_table, k_table, q, k, v, slots, scale, window, page_table, lengths, out)
   */
  ps_append_attend: {
    parameters: [
      "pointer",
      "i32",
      "f32",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "f32",
      "i32",
      "buffer",
      "buffer",
      "buffer",
    ],
    result: "i32",
  },
  /**
   * mass[b, h, p] = share of page p in the exact softmax of query head h over all pages, or over those of the last `window` tokens: the
   * attention that the page receives, which the scores only predict. Serves to inspect a decode step and is not part of one.
   * q [B, Hq, d] f32; page_table [B, M] i32; lengths [B] i32; mass [B, Hq, M] f32, written for p < P.
   * (cache, layer, scale, window, q, page_table, lengths, mass)
   */
  ps_page_mass: { parameters: ["pointer", "i32", "f32", "i32", "buffer", "buffer", "buffer", "buffer"], result: "i32" },
  /**
   * ps_page_choose, then ps_decode_attention over the selected pages, in one call: the sparse attention of a decode step.
   * (cache, layer, scorer, lambda, sink_pages, recent_pages, scale, q, page_table, lengths, scores, selected, counts, out)
   */
  ps_sparse_attention: {
    parameters: [
      "pointer",
      "i32",
      "i32",
      "f32",
      "i32",
      "i32",
      "f32",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
    ],
    result: "i32",
  },
  /**
   * ps_append_rotated, then ps_sparse_attention, in one call; `lengths` count the appended tokens. The contents of q and k are undefined
   * afterwards. The other arguments are those of the two calls.
   * (cache, layer, eps, q_norm, k_norm, q_table, k_table, q, k, v, slots, scorer, lambda, sink_pages, recent_pages, scale, page_table, lengths, scores, selected, counts, out)
   */
  ps_append_sparse_attention: {
    parameters: [
      "pointer",
      "i32",
      "f32",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "i32",
      "f32",
      "i32",
      "i32",
      "f32",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
    ],
    result: "i32",
  },
  /**
   * Causal attention of T consecutive tokens of one sequence, the first at position `start`; their keys and values are already in
   * the cache. The CUDA build rounds keys and values of 8 bits to the dtype of the cache here. window > 0: a token attends to the last `window` tokens, including itself.
   * q, out [T, Hq, d] f32; page_table [M] i32.
   * (cache, layer, scale, window, start, q, page_table, out)
   */
  ps_prefill_attention: {
    parameters: ["pointer", "i32", "f32", "i32", "i32", "buffer", "buffer", "buffer"],
    result: "i32",
  },
  /**
   * Chooses k of the pages before the own pages of each tile, for each KV head: all of them if there are no more than k; otherwise the first
   * sink_pages, the last recent_pages (which come first if k is too small for both), and the best of the rest. The scores of each
   * query, times scale, become shares by a softmax over the rest, in which NaN does not count. The score of a page is the sum of its shares
   * over the query heads of the group and 16 tokens of the tile at equal distances, the last one included (all tokens of a smaller tile).
   * Scorers, ties and NaN are those of ps_page_score and ps_page_select. The CUDA build rounds queries to the dtype of the
   * cache here.
   * q [T, Hq, d] f32; page_table [M] i32; selected [N, Hk, k] i32, logical pages in ascending order; counts [N, Hk] i32, from 0 to k.
   * (cache, layer, scorer, lambda, sink_pages, recent_pages, scale, start, tile_tokens, q, page_table, selected, counts)
   */
  ps_prefill_choose: {
    parameters: [
      "pointer",
      "i32",
      "i32",
      "f32",
      "i32",
      "i32",
      "f32",
      "i32",
      "i32",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
    ],
    result: "i32",
  },
  /**
   * ps_prefill_attention in which a token attends to the selected pages of its tile, and to the tile's own pages up to itself.
   * (cache, layer, scale, start, tile_tokens, q, page_table, selected, counts, out)
   */
  ps_sparse_prefill_attention: {
    parameters: ["pointer", "i32", "f32", "i32", "i32", "buffer", "buffer", "buffer", "buffer", "buffer"],
    result: "i32",
  },
  /**
   * One field of one physical page of one layer, as float32. out [num_floats]: the shape is given at ps_cache_field.
   * (cache, layer, page, field, out, num_floats)
   */
  ps_cache_read: { parameters: ["pointer", "i32", "i32", "i32", "buffer", "i64"], result: "i32" },
  /**
   * Copies whole pages, or whole groups of pages if the cache has groups: keys, values and statistics of all layers, bit for bit. The bytes
   * are opaque; a cache of the same build imports them if its description differs only in num_pages, max_pages_per_sequence and
   * max_sequences. pages [count]: the physical page, or the first page of the group; `bytes` is count * ps_cache_bytes.unit.
   * (cache, pages, count, out, bytes)
   */
  ps_cache_export: { parameters: ["pointer", "buffer", "i64", "buffer", "i64"], result: "i32" },
  /** (cache, pages, count, source, bytes) */
  ps_cache_import: { parameters: ["pointer", "buffer", "i64", "buffer", "i64"], result: "i32" },
  /** (cache, out) */
  ps_cache_counters: { parameters: ["pointer", "buffer"], result: "i32" },
  /** (cache) */
  ps_cache_reset_counters: { parameters: ["pointer"], result: "i32" },
  /**
   * Opens `count` devices of this build as one. Every buffer and cache exists on each member, of the same size, and every operation runs on
   * each with the member's own contents: a caller splits a model by writing each member its share of the weights (ps_group_only), and joins
   * results by ps_all_reduce and ps_all_gather. Reads return the contents of the first member; counters are sums over the members, available
   * memory is that of the fullest. options [count]: on a GPU, each index once; in the CPU build, index i for member i. A group of one is a
   * device. GPUs exchange results in each other's memory; PS_UNSUPPORTED if they cannot reach it. With PAGESIFT_NCCL=1 they use NCCL 2;
   * PS_UNSUPPORTED if it cannot be loaded. message [message_bytes] as in ps_device_open.
   * (options, count, out, message, message_bytes)
   */
  ps_group_open: { parameters: ["buffer", "i32", "buffer", "buffer", "i32"], result: "i32" },
  /**
   * Restricts copies, weights and operations to one member until the next call; -1: all members again.
   * (device, member)
   */
  ps_group_only: { parameters: ["pointer", "i32"], result: "i32" },
  /**
   * Replaces x on every member by the sum over all members. x [T, n] f32, without gaps between rows. Nothing on a single device.
   * (device, x)
   */
  ps_all_reduce: { parameters: ["pointer", "buffer"], result: "i32" },
  /**
   * The same in two calls: operations that neither read nor write x may follow the first one, and run while the results travel between GPUs.
   * x holds the sum after the second one.
   * (device, x)
   */
  ps_all_reduce_start: { parameters: ["pointer", "buffer"], result: "i32" },
  /** (device, x) */
  ps_all_reduce_finish: { parameters: ["pointer", "buffer"], result: "i32" },
  /**
   * Joins columns: out [T, members * n] contains x [T, n] of every member in turn, on every member. f32; x has no gaps between rows.
   * (device, x, out)
   */
  ps_all_gather: { parameters: ["pointer", "buffer", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

export type Symbols = Deno.DynamicLibrary<typeof symbols>["symbols"];
