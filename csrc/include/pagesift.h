/* Pagesift: paged KV cache, page scoring, page selection and sparse attention behind one C contract.
 *
 * Two builds export these symbols: libpagesift_cpu and libpagesift_cuda.
 *
 * Ownership  Every handle has one owner, the caller, who closes it with the call of the same noun. Children (buffers, caches,
 *            graphs) must be closed before their device. The library never returns memory that the caller must free.
 * Errors     Every call returns a ps_status (int32_t) unless its comment says otherwise. After a call that does not return PS_OK,
 *            ps_error_message returns one line of text to the thread that made the call, whatever other threads do meanwhile.
 *            ps_device_open and ps_device_wait also write it to a buffer that the caller passes, so that another thread can read it.
 *            No call throws, aborts or exits. A failed call changes nothing.
 *            Calls on a closed handle return PS_INVALID_ARGUMENT, including a second close, until 4,096 more handles of its kind
 *            have been closed.
 * Threads    Calls on one device and its children from several threads run one after another: a close waits for a pending
 *            ps_device_wait.
 *            Calls on different devices run in parallel.
 * Order      Operations on a device take effect in the order of the calls. A call may return before its work is done;
 *            ps_device_wait and the calls that copy to main memory wait for it. In the CPU build, the work is done when a call returns.
 * Contents   Indices in device memory (ids, slots, page tables, lengths, selections) are checked when they are used. The CPU build
 *            refuses the call. The CUDA build skips invalid indices, and the next call that waits returns PS_INVALID_ARGUMENT with the
 *            same message.
 *            A call refuses to overwrite the indices that it reads. Page tables and lengths are written by ps_buffer_write, not by
 *            operations: kernels read them while the operation before theirs still runs.
 * Tensors    Operations take views (ps_tensor) of buffers. Every view is checked against its buffer and against the shapes of the
 *            operation, in release builds too. Shapes are in brackets, outermost dimension first.
 *
 * T tokens, B sequences, H hidden size, V vocabulary, Hq query heads, Hk KV heads, d head size, S tokens per page,
 * P pages of a sequence, M columns of the page table. Query head h reads KV head h / (Hq / Hk).
 *
 * scripts/gate/abi.ts generates the tables in ffi/ and scripts/studies/ from this file; after a change, run it with --write.
 */
#ifndef PAGESIFT_H
#define PAGESIFT_H

#include <stdint.h>

#if defined(_WIN32)
#define PS_API __declspec(dllexport)
#else
#define PS_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define PS_ABI_VERSION 14

typedef struct ps_device ps_device;
typedef struct ps_buffer ps_buffer;
typedef struct ps_cache ps_cache;
typedef struct ps_graph ps_graph;

typedef enum ps_status {
  PS_OK = 0,
  PS_INVALID_ARGUMENT = 1, /* a shape, index, dtype or option is invalid; nothing has changed */
  PS_OUT_OF_MEMORY = 2,
  PS_NO_DEVICE = 3,    /* no device, no driver, or a driver too old */
  PS_UNSUPPORTED = 4,  /* not supported by this build; the message names what is */
  PS_DEVICE_ERROR = 5, /* the device failed; every later call on it returns the same status and message */
  PS_INTERNAL = 6
} ps_status;

typedef enum ps_backend { PS_BACKEND_CPU = 0, PS_BACKEND_CUDA = 1 } ps_backend;
/* From PS_Q8_0 on, formats of weights in blocks along the inner dimension, whose numbers share a scale: only for the weight of ps_matmul
 * and the table of ps_embedding. A row of K numbers, a multiple of the block, takes K / block * (bytes of a block). Such a weight starts at a
 * multiple of 16 bytes. */
typedef enum ps_dtype {
  PS_F32 = 0,
  PS_F16 = 1,
  PS_BF16 = 2,
  PS_I32 = 3,
  PS_Q8_0 = 4,  /* 32 numbers, 34 bytes; the layouts of these eight are GGUF's */
  PS_Q4_0 = 5,  /* 32 numbers, 18 bytes */
  PS_Q4_1 = 6,  /* 32 numbers, 20 bytes */
  PS_Q5_0 = 7,  /* 32 numbers, 22 bytes */
  PS_Q5_1 = 8,  /* 32 numbers, 24 bytes */
  PS_Q4_K = 9,  /* 256 numbers, 144 bytes */
  PS_Q5_K = 10, /* 256 numbers, 176 bytes */
  PS_Q6_K = 11, /* 256 numbers, 210 bytes */
  PS_F8 = 12    /* 128 numbers, 132 bytes: 128 bytes of e4m3, then the float32 that multiplies them */
} ps_dtype;
/* What a cache stores keys and values in. In 8 bits, the d numbers of a token and KV head share a float32 scale, largest |x| / 127 or
 * largest |x| / 448, and x is stored as x / scale rounded to nearest, ties to even. A row with a number that is not finite becomes NaN. */
typedef enum ps_kv_type {
  PS_KV_DTYPE = 0, /* the dtype of the cache */
  PS_KV_Q8 = 1,    /* integers from -127 to 127 */
  PS_KV_FP8 = 2    /* e4m3 */
} ps_kv_type;
typedef enum ps_scorer { PS_UNIQUE = 0, PS_DIAG = 1, PS_QUEST = 2, PS_MEAN = 3 } ps_scorer;

/* What ps_fused_matmul does with a product. */
typedef enum ps_ending {
  PS_STORE = 0,
  PS_ADD = 1,      /* adds it to out */
  PS_SILU_MUL = 2, /* ps_silu_mul of its first half, the gate, and its second half */
  PS_GELU_MUL = 3  /* ps_gelu_mul of them */
} ps_ending;

/* Statistics that a cache stores besides the mean and the standard deviation, which it always stores. */
typedef enum ps_statistics {
  PS_STATISTICS_VARIANCE = 1,
  PS_STATISTICS_MIN_MAX = 2,
  PS_STATISTICS_F8 = 4, /* means as 8-bit floats (e4m3) with one float32 scale per row, instead of the dtype of the pages */
  PS_STATISTICS_COARSE = 8 /* the CUDA build also stores copies in bytes, means in 8 bits and variances in 2, where it has kernels for them
                            * (16-bit dtypes, head sizes 64, 96, 128 and 256), and ps_page_choose reads these first */
} ps_statistics;

/* The fields that ps_cache_read can read of one page of one layer. */
typedef enum ps_cache_field {
  PS_FIELD_KEYS = 0,   /* [Hk, S, d] */
  PS_FIELD_VALUES = 1, /* [Hk, S, d] */
  PS_FIELD_MEAN = 2,   /* [Hk, d] */
  PS_FIELD_STD = 3,    /* [Hk] */
  PS_FIELD_VAR = 4,    /* [Hk, d] */
  PS_FIELD_MIN = 5,    /* [Hk, d] */
  PS_FIELD_MAX = 6     /* [Hk, d] */
} ps_cache_field;

/* A view of a buffer. The inner dimensions are contiguous; consecutive indices of dimension 0 are row_stride elements apart. In a block
 * format, the inner dimension and row_stride are multiples of the block. A view of some rows of such a weight begins at a multiple of 16
 * rows, and contains a multiple of 16 rows unless it ends where the weight ends. */
typedef struct ps_tensor {
  ps_buffer *buffer;
  int64_t offset_bytes;
  int64_t row_stride; /* elements */
  int64_t shape[3];   /* unused dimensions are 1 */
  int32_t rank;       /* 1 to 3 */
  int32_t dtype;      /* ps_dtype */
} ps_tensor;

typedef struct ps_device_options {
  int32_t index;       /* which device; 0 on the CPU */
  int32_t num_threads; /* CPU: 0 means one per processor that the process may use (affinity, container quota) */
} ps_device_options;

typedef struct ps_device_info {
  int64_t total_bytes;     /* device memory; main memory on the CPU */
  int64_t available_bytes; /* memory that can be allocated now */
  int64_t allocated_bytes; /* buffers and caches of this device */
  int32_t backend;         /* ps_backend */
  int32_t num_threads;     /* CPU threads, or 0 */
  int32_t records;         /* 1 if ps_graph_begin is supported */
  int32_t capability;      /* CUDA compute capability times ten, such as 90 for 9.0; 0 on the CPU */
  char name[64];           /* for display, NUL-terminated: instruction set, or the GPU's name */
} ps_device_info;

typedef struct ps_cache_desc {
  int64_t num_pages;              /* physical pages in the pool, shared by all sequences; each page spans all layers */
  int64_t max_pages_per_sequence; /* M; determines the size of scratch */
  int32_t num_layers;
  int32_t num_query_heads; /* Hq */
  int32_t num_kv_heads;    /* Hk, a divisor of Hq */
  int32_t head_dim;        /* d, a multiple of 16 up to 512 */
  int32_t page_size;       /* S: 8, 16, 32 or 64 */
  int32_t dtype; /* page statistics, and keys and values unless kv_type says otherwise: PS_F32, PS_F16 or PS_BF16; std is always float32 */
  int32_t statistics; /* bits of ps_statistics */
  int32_t max_sequences; /* largest B of a decode call; determines the size of scratch */
  int32_t group_pages; /* 0, or 8: logical pages 8 i to 8 i + 7 of a sequence are physical pages 8 j to 8 j + 7; then the CUDA build
                            * also stores statistics of these groups, and ps_page_choose reads them first. Divides num_pages */
  int32_t kv_type; /* ps_kv_type */
} ps_cache_desc;

typedef struct ps_cache_bytes {
  int64_t kv;
  int64_t statistics;
  int64_t scratch;
  int64_t unit; /* what ps_cache_export writes for one page, or for one group of pages if the cache has groups; not part of the sum */
} ps_cache_bytes;

/* Counted by the kernels; a row is one (sequence, layer, KV head). */
typedef struct ps_counters {
  int64_t rows_selected; /* rows whose selection left out at least one page */
  int64_t pages_scored; /* rows of statistics read, of pages and of groups */
  int64_t pages_attended; /* pages that decode attention read, summed over rows */
  int64_t pages_in_context; /* pages that dense attention would have read, summed over the same rows */
  int64_t selections; /* calls of ps_page_select in which at least one row left out a page */
  /* of prompts, summed over (tile, layer, KV head): */
  int64_t prompt_pages_scored;   /* pages whose statistics ps_prefill_choose read */
  int64_t prompt_pages_attended; /* pages that ps_sparse_prefill_attention read */
  int64_t prompt_pages_visible;  /* pages that dense attention would have read */
  int64_t copies_scored;         /* coarse copies read, summed over rows */
} ps_counters;

/* ---- library ---- */

PS_API int32_t ps_abi_version(void);
/* Size of a struct of this header in bytes, by its number: 0 ps_tensor, 1 ps_device_options, 2 ps_device_info,
 * 3 ps_cache_desc, 4 ps_cache_bytes, 5 ps_counters; -1 for any other number. */
PS_API int32_t ps_struct_bytes(int32_t which);
/* Number of open devices, buffers, caches and graphs. */
PS_API int64_t ps_live_handles(void);
/* Why the latest failed call of this thread failed, truncated to `bytes`, NUL-terminated; empty if no call has failed. */
PS_API int32_t ps_error_message(char *out, int32_t bytes);

/* ---- device ---- */

/* message [message_bytes]: receives the reason for a failure, NUL-terminated; may be NULL. */
PS_API int32_t ps_device_open(const ps_device_options *options, ps_device **out, char *message, int32_t message_bytes);
/* Returns PS_INVALID_ARGUMENT while children are open. */
PS_API int32_t ps_device_close(ps_device *device);
PS_API int32_t ps_device_describe(ps_device *device, ps_device_info *out);
/* Waits until all work of the device is done. May run on a thread that the caller does not control: message [message_bytes] receives
 * the reason for a failure, NUL-terminated; may be NULL. */
PS_API int32_t ps_device_wait(ps_device *device, char *message, int32_t message_bytes);

/* The bytes of a new buffer are zero. */
PS_API int32_t ps_buffer_create(ps_device *device, int64_t bytes, ps_buffer **out);
PS_API int32_t ps_buffer_close(ps_buffer *buffer);
PS_API int32_t ps_buffer_write(ps_buffer *buffer, int64_t offset_bytes, const void *source, int64_t bytes);
PS_API int32_t ps_buffer_read(ps_buffer *buffer, int64_t offset_bytes, void *target, int64_t bytes);
/* Starts to read 1 to 1,024 bytes for ps_read_finish. Work that is started afterwards does not delay it. At most 4 reads are under way per device. */
PS_API int32_t ps_read_start(ps_buffer *buffer, int64_t offset_bytes, int64_t bytes);
/* Waits for the oldest read that was started, and writes its bytes, as many, to target. An index that an operation refused is reported as by
 * ps_buffer_read, except a token id of -1: that is what ps_argmax and ps_sample write for a row without a token, and the next step reads. */
PS_API int32_t ps_read_finish(ps_device *device, void *target, int64_t bytes);
/* Reads the whole buffer as fast as the device can and writes the exclusive or of its 32-bit words to `out`, to measure bandwidth. */
PS_API int32_t ps_buffer_scan(ps_buffer *buffer, uint32_t *out);

/* ---- recorded work ---- */

/* Until ps_graph_end, operations are recorded instead of run. They read positions, lengths and tables from device memory when the
 * graph is launched. Meanwhile, calls that allocate, copy or wait are refused. PS_UNSUPPORTED on the CPU. */
PS_API int32_t ps_graph_begin(ps_device *device);
/* Ends a recording. If a recorded call failed, this call fails too and creates nothing. */
PS_API int32_t ps_graph_end(ps_device *device, ps_graph **out);
/* Runs the recorded operations. The buffers and caches that they use must still be open. */
PS_API int32_t ps_graph_launch(ps_graph *graph);
PS_API int32_t ps_graph_close(ps_graph *graph);

/* ---- weights ---- */

/* Writes rows [first_row, first_row + rows) of a weight [N, K] or [N]. source: the rows without gaps in main memory, source_bytes bytes
 * in all. A source of the weight's own dtype is stored bit for bit. Otherwise the source is f32, f16 or bf16 and is rounded to nearest,
 * or quantised as ggml's reference quantiser does: to q8_0, q4_0, q4_1, q5_0 and q5_1, from numbers up to 65504; PS_UNSUPPORTED for the
 * other block formats. A build may arrange block-format rows in its own way in the same bytes: only the operations below can read them. */
PS_API int32_t ps_weight_write(ps_device *device, const ps_tensor *weight, int64_t first_row, int64_t rows, int32_t source_dtype, const void *source,
                               int64_t source_bytes);

/* ---- operations; activations are f32, weights f32, f16 or bf16; ps_embedding and ps_matmul also take block formats ---- */

/* out[t] = table[ids[t]]. ids [T] i32, each in [0, V); table [V, H]; out [T, H]. Exact, also from a block format. */
PS_API int32_t ps_embedding(ps_device *device, const ps_tensor *ids, const ps_tensor *table, const ps_tensor *out);
/* out = x / sqrt(mean(x^2) + eps) * weight over the last dimension n. x, out [T, n] or [T, heads, n]; weight [n]; out may be x. */
PS_API int32_t ps_rms_norm(ps_device *device, const ps_tensor *x, const ps_tensor *weight, float eps, const ps_tensor *out);
/* x += y, then the norm of x. x, y, out [T, n]; weight [n]; out is neither x nor y. */
PS_API int32_t ps_add_rms_norm(ps_device *device, const ps_tensor *x, const ps_tensor *y, const ps_tensor *weight, float eps, const ps_tensor *out);
/* Cosines then sines of positions[t] * inv_freq[i], times
 *   scale * (1 + position_beta * ln(1 + floor(positions[t] / position_origin)));  position_beta 0 makes the second factor 1.
 * positions [T] i32; inv_freq [r/2] f32; out [T, r] f32. */
PS_API int32_t ps_rope_table(ps_device *device, const ps_tensor *positions, const ps_tensor *inv_freq, float scale, float position_beta,
                             int32_t position_origin, const ps_tensor *out);
/* Rotates the first r of the d numbers of every head in place, in pairs (i, i + r/2). x [T, heads, d]; table [T, r]. */
PS_API int32_t ps_rope(ps_device *device, const ps_tensor *x, const ps_tensor *table);
/* out = silu(gate) * up. gate, up, out [T, n]. */
PS_API int32_t ps_silu_mul(ps_device *device, const ps_tensor *gate, const ps_tensor *up, const ps_tensor *out);
/* out = x * weight^T + bias. x [T, K]; weight [N, K]; bias [N], may be NULL; out [T, N]. Up to 16 tokens with a weight in a block format, the
 * error per block of 32 numbers is at most 1/254 of the largest |x| of the block, times the sum of |weight| over it: the CPU build rounds x
 * to 15 bits there and stays far below; the CUDA build rounds weights and x to f16. For more tokens, the CUDA build and the CPU build with
 * AMX round x and weights in blocks to bf16, with an error of at most 1/127 of the sum of |x * weight|. With AMX, x goes in as two parts of
 * bf16 (16 bits) for 17 to 256 tokens, and is rounded to bf16 for more, also for bf16 weights. On arm64 with bf16 instructions, both are
 * rounded to bf16 for more than 256 tokens only. */
PS_API int32_t ps_matmul(ps_device *device, const ps_tensor *x, const ps_tensor *weight, const ps_tensor *bias, const ps_tensor *out);
/* ps_rms_norm of x by `norm`, then ps_matmul, then what `ending` says, in one call: what surrounds the products of a decode step. norm [K] and
 * normed [T, K], both NULL or neither; product [T, N], NULL for PS_STORE. x [T, K]; weight [N, K]; bias [N], may be NULL; out [T, N], for
 * PS_SILU_MUL and PS_GELU_MUL [T, N / 2]. out is none of the others. `normed` and `product` are scratch: their contents are undefined
 * afterwards. next_norm [N] and next_normed [T, N], both NULL or neither and only with PS_ADD, say what follows: a ps_fused_matmul whose x, norm and
 * normed are out, next_norm and next_normed, with the same eps. That may come sooner then, and differ by rounding; if something else follows,
 * nothing is lost. The CUDA build computes one token in one launch. */
PS_API int32_t ps_fused_matmul(ps_device *device, const ps_tensor *x, const ps_tensor *norm, float eps, const ps_tensor *weight,
                               const ps_tensor *bias, int32_t ending, const ps_tensor *normed, const ps_tensor *product, const ps_tensor *out,
                               const ps_tensor *next_norm, const ps_tensor *next_normed);
/* x += y. x, y [T, n]. */
PS_API int32_t ps_add(ps_device *device, const ps_tensor *x, const ps_tensor *y);
/* The index of the largest number of each row, the lowest index on ties; -1 for a row with a NaN or an infinite maximum.
 * x [T, n]; out [T] i32. */
PS_API int32_t ps_argmax(ps_device *device, const ps_tensor *x, const ps_tensor *out);
/* Draws a token for each row; -1 for a row with a NaN or an infinite maximum, or whose temperature is not above 0. Tokens rank by logit, on
 * ties by lower id; max is the largest logit. In this order:
 *   top_k  keeps the k best; 0 keeps all
 *   top_p  keeps the fewest of the best whose exp(logit - max) sum to at least top_p of the total, at least one; 1 keeps all
 *   min_p  keeps those with logit >= max + ln(min_p), and always the best; 0 keeps all
 *   draw   selects the first whose running sum of exp((logit - max) / temperature) exceeds draw * the total, in descending rank if
 *          top_k, top_p or min_p filters, else in ascending id. Logits of -infinity are never drawn.
 * Exponentials are rounded to multiples of 2^-40, so that sums do not depend on their order: both builds draw the same token.
 * logits [T, V] f32, V up to 2^23; settings [T, 4] f32: temperature > 0, top_p, min_p, whole top_k; draws [T] f32 in [0, 1); out [T] i32. */
PS_API int32_t ps_sample(ps_device *device, const ps_tensor *logits, const ps_tensor *settings, const ps_tensor *draws, const ps_tensor *out);
/* The k largest values of the softmax of each row, in descending order, on ties by lower index; normalize: scaled to sum to 1.
 * logits [T, E]; experts [T, k] i32; weights [T, k] f32. */
PS_API int32_t ps_route_experts(ps_device *device, const ps_tensor *logits, int32_t normalize, const ps_tensor *experts, const ps_tensor *weights);
/* out[rows[i]] += weights[i] * x[i]. x [N, n]; rows [N] i32, each in [0, T), no duplicates; weights [N]; out [T, n]. */
PS_API int32_t ps_scatter_add(ps_device *device, const ps_tensor *x, const ps_tensor *rows, const ps_tensor *weights, const ps_tensor *out);
/* out = gelu(gate) * up, with the tanh form of gelu: gelu(x) = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))).
 * gate, up, out [T, n]. */
PS_API int32_t ps_gelu_mul(ps_device *device, const ps_tensor *gate, const ps_tensor *up, const ps_tensor *out);
/* x *= factor. x [T, n]. */
PS_API int32_t ps_scale(ps_device *device, const ps_tensor *x, float factor);

/* ---- KV cache ---- */

/* The memory that a cache of this description takes; checks the description. */
PS_API int32_t ps_cache_measure(ps_device *device, const ps_cache_desc *desc, ps_cache_bytes *out);
PS_API int32_t ps_cache_create(ps_device *device, const ps_cache_desc *desc, ps_cache **out);
PS_API int32_t ps_cache_close(ps_cache *cache);

/* Stores keys and values and updates the statistics of every page written to, from the keys as stored: such a page then contains
 * the tokens up to the last one written to it. A slot is physical page * S + position in the page; the slots of one page must
 * ascend within a call. k, v [T, Hk, d] f32; slots [T] i32. */
PS_API int32_t ps_append_kv(ps_cache *cache, int32_t layer, const ps_tensor *k, const ps_tensor *v, const ps_tensor *slots);
/* All steps between a layer's projections and its attention in one call: ps_rms_norm of every head of q by q_norm and of k by k_norm,
 * ps_rope of q by q_table and of k by k_table, ps_append_kv of k and v. q is changed in place; the contents of k are undefined afterwards.
 * q [T, Hq, d], k, v [T, Hk, d] f32; q_norm, k_norm [d], both NULL or neither; tables [T, r] f32; slots [T] i32. */
PS_API int32_t ps_append_rotated(ps_cache *cache, int32_t layer, float eps, const ps_tensor *q_norm, const ps_tensor *k_norm,
                                 const ps_tensor *q_table, const ps_tensor *k_table, const ps_tensor *q, const ps_tensor *k, const ps_tensor *v,
                                 const ps_tensor *slots);
/* Recomputes the statistics of one physical page in all layers over its first num_tokens tokens (after a truncation). */
PS_API int32_t ps_page_statistics(ps_cache *cache, int32_t page, int32_t num_tokens);
/* scores[b, j, p] = the largest score of page p over the query heads of KV head j (tests/fixtures/unique_reference.py, page_scores).
 * q [B, Hq, d]; page_table [B, M] i32 physical pages; lengths [B] i32 tokens in the cache; scores [B, Hk, M] f32, written for
 * p < P = ceil(length / S). */
PS_API int32_t ps_page_score(ps_cache *cache, int32_t layer, int32_t scorer, float lambda, const ps_tensor *q, const ps_tensor *page_table,
                             const ps_tensor *lengths, const ps_tensor *scores);
/* Selects k pages per row, ascending; k is the last dimension of `selected`. P <= k: every page. Otherwise the last recent_pages,
 * then the first sink_pages, are always selected, then the pages with the highest scores, on ties the lower page; NaN ranks below
 * every number. scores [B, Hk, M]; lengths [B] i32; selected [B, Hk, k] i32; counts [B, Hk] i32. */
PS_API int32_t ps_page_select(ps_cache *cache, int32_t sink_pages, int32_t recent_pages, const ps_tensor *scores, const ps_tensor *lengths,
                              const ps_tensor *selected, const ps_tensor *counts);
/* ps_page_score and ps_page_select in one faster call. For PS_UNIQUE and PS_MEAN, a cache with groups scores the groups first, then only
 * the pages of the best groups, and those of the newest group unless recent_pages is 0: it can miss a page whose group scores low. Otherwise
 * a cache with coarse copies scores all pages by them, except for PS_QUEST, and the best 2 k again: it can miss a page whose copy scores far
 * too low. `scores` [B, Hk, M] f32 is scratch. The other arguments are those of the two calls. */
PS_API int32_t ps_page_choose(ps_cache *cache, int32_t layer, int32_t scorer, float lambda, int32_t sink_pages, int32_t recent_pages,
                              const ps_tensor *q, const ps_tensor *page_table, const ps_tensor *lengths, const ps_tensor *scores,
                              const ps_tensor *selected, const ps_tensor *counts);
/* Attention of one query per sequence over the selected pages, or over all pages when `selected` and `counts` are NULL.
 * window > 0: only the last `window` tokens; refused together with a selection. q.k is multiplied by scale.
 * q, out [B, Hq, d] f32; page_table [B, M] i32; lengths [B] i32; selected [B, Hk, k] i32 logical pages; counts [B, Hk] i32. */
PS_API int32_t ps_decode_attention(ps_cache *cache, int32_t layer, float scale, int32_t window, const ps_tensor *q, const ps_tensor *page_table,
                                   const ps_tensor *lengths, const ps_tensor *selected, const ps_tensor *counts, const ps_tensor *out);
/* ps_append_rotated, then ps_decode_attention over all pages, in one call; `lengths` count the appended tokens. The contents of q and k are
 * undefined afterwards. The other arguments are those of the two calls. */
PS_API int32_t ps_append_attend(ps_cache *cache, int32_t layer, float eps, const ps_tensor *q_norm, const ps_tensor *k_norm, const ps_tensor *q_table,
                                const ps_tensor *k_table, const ps_tensor *q, const ps_tensor *k, const ps_tensor *v, const ps_tensor *slots,
                                float scale, int32_t window, const ps_tensor *page_table, const ps_tensor *lengths, const ps_tensor *out);
/* mass[b, h, p] = share of page p in the exact softmax of query head h over all pages, or over those of the last `window` tokens: the
 * attention that the page receives, which the scores only predict. Serves to inspect a decode step and is not part of one.
 * q [B, Hq, d] f32; page_table [B, M] i32; lengths [B] i32; mass [B, Hq, M] f32, written for p < P. */
PS_API int32_t ps_page_mass(ps_cache *cache, int32_t layer, float scale, int32_t window, const ps_tensor *q, const ps_tensor *page_table,
                            const ps_tensor *lengths, const ps_tensor *mass);
/* ps_page_choose, then ps_decode_attention over the selected pages, in one call: the sparse attention of a decode step. */
PS_API int32_t ps_sparse_attention(ps_cache *cache, int32_t layer, int32_t scorer, float lambda, int32_t sink_pages, int32_t recent_pages,
                                   float scale, const ps_tensor *q, const ps_tensor *page_table, const ps_tensor *lengths, const ps_tensor *scores,
                                   const ps_tensor *selected, const ps_tensor *counts, const ps_tensor *out);
/* ps_append_rotated, then ps_sparse_attention, in one call; `lengths` count the appended tokens. The contents of q and k are undefined
 * afterwards. The other arguments are those of the two calls. */
PS_API int32_t ps_append_sparse_attention(ps_cache *cache, int32_t layer, float eps, const ps_tensor *q_norm, const ps_tensor *k_norm,
                                          const ps_tensor *q_table, const ps_tensor *k_table, const ps_tensor *q, const ps_tensor *k,
                                          const ps_tensor *v, const ps_tensor *slots, int32_t scorer, float lambda, int32_t sink_pages,
                                          int32_t recent_pages, float scale, const ps_tensor *page_table, const ps_tensor *lengths,
                                          const ps_tensor *scores, const ps_tensor *selected, const ps_tensor *counts, const ps_tensor *out);
/* Causal attention of T consecutive tokens of one sequence, the first at position `start`; their keys and values are already in
 * the cache. The CUDA build rounds keys and values of 8 bits to the dtype of the cache here. window > 0: a token attends to the last `window` tokens, including itself.
 * q, out [T, Hq, d] f32; page_table [M] i32. */
PS_API int32_t ps_prefill_attention(ps_cache *cache, int32_t layer, float scale, int32_t window, int32_t start, const ps_tensor *q,
                                    const ps_tensor *page_table, const ps_tensor *out);
/* ---- sparse prefill: the T tokens of a chunk, the first at position `start`, in N tiles. A tile is the tokens of the chunk at positions
 * [i * tile_tokens, (i + 1) * tile_tokens), so N = (start + T - 1) / tile_tokens - start / tile_tokens + 1. Its own pages begin with the page
 * of its first token. ---- */

/* Chooses k of the pages before the own pages of each tile, for each KV head: all of them if there are no more than k; otherwise the first
 * sink_pages, the last recent_pages (which come first if k is too small for both), and the best of the rest. The scores of each
 * query, times scale, become shares by a softmax over the rest, in which NaN does not count. The score of a page is the sum of its shares
 * over the query heads of the group and 16 tokens of the tile at equal distances, the last one included (all tokens of a smaller tile).
 * Scorers, ties and NaN are those of ps_page_score and ps_page_select. The CUDA build rounds queries to the dtype of the
 * cache here.
 * q [T, Hq, d] f32; page_table [M] i32; selected [N, Hk, k] i32, logical pages in ascending order; counts [N, Hk] i32, from 0 to k. */
PS_API int32_t ps_prefill_choose(ps_cache *cache, int32_t layer, int32_t scorer, float lambda, int32_t sink_pages, int32_t recent_pages, float scale,
                                 int32_t start, int32_t tile_tokens, const ps_tensor *q, const ps_tensor *page_table, const ps_tensor *selected,
                                 const ps_tensor *counts);
/* ps_prefill_attention in which a token attends to the selected pages of its tile, and to the tile's own pages up to itself. */
PS_API int32_t ps_sparse_prefill_attention(ps_cache *cache, int32_t layer, float scale, int32_t start, int32_t tile_tokens, const ps_tensor *q,
                                           const ps_tensor *page_table, const ps_tensor *selected, const ps_tensor *counts, const ps_tensor *out);

/* One field of one physical page of one layer, as float32. out [num_floats]: the shape is given at ps_cache_field. */
PS_API int32_t ps_cache_read(ps_cache *cache, int32_t layer, int32_t page, int32_t field, float *out, int64_t num_floats);
/* Copies whole pages, or whole groups of pages if the cache has groups: keys, values and statistics of all layers, bit for bit. The bytes
 * are opaque; a cache of the same build imports them if its description differs only in num_pages, max_pages_per_sequence and
 * max_sequences. pages [count]: the physical page, or the first page of the group; `bytes` is count * ps_cache_bytes.unit. */
PS_API int32_t ps_cache_export(ps_cache *cache, const int32_t *pages, int64_t count, void *out, int64_t bytes);
PS_API int32_t ps_cache_import(ps_cache *cache, const int32_t *pages, int64_t count, const void *source, int64_t bytes);
PS_API int32_t ps_cache_counters(ps_cache *cache, ps_counters *out);
PS_API int32_t ps_cache_reset_counters(ps_cache *cache);

/* ---- groups of devices ---- */

/* Opens `count` devices of this build as one. Every buffer and cache exists on each member, of the same size, and every operation runs on
 * each with the member's own contents: a caller splits a model by writing each member its share of the weights (ps_group_only), and joins
 * results by ps_all_reduce and ps_all_gather. Reads return the contents of the first member; counters are sums over the members, available
 * memory is that of the fullest. options [count]: on a GPU, each index once; in the CPU build, index i for member i. A group of one is a
 * device. GPUs exchange results in each other's memory; PS_UNSUPPORTED if they cannot reach it. With PAGESIFT_NCCL=1 they use NCCL 2;
 * PS_UNSUPPORTED if it cannot be loaded. message [message_bytes] as in ps_device_open. */
PS_API int32_t ps_group_open(const ps_device_options *options, int32_t count, ps_device **out, char *message, int32_t message_bytes);
/* Restricts copies, weights and operations to one member until the next call; -1: all members again. */
PS_API int32_t ps_group_only(ps_device *device, int32_t member);
/* Replaces x on every member by the sum over all members. x [T, n] f32, without gaps between rows. Nothing on a single device. */
PS_API int32_t ps_all_reduce(ps_device *device, const ps_tensor *x);
/* The same in two calls: operations that neither read nor write x may follow the first one, and run while the results travel between GPUs.
 * x holds the sum after the second one. */
PS_API int32_t ps_all_reduce_start(ps_device *device, const ps_tensor *x);
PS_API int32_t ps_all_reduce_finish(ps_device *device, const ps_tensor *x);
/* Joins columns: out [T, members * n] contains x [T, n] of every member in turn, on every member. f32; x has no gaps between rows. */
PS_API int32_t ps_all_gather(ps_device *device, const ps_tensor *x, const ps_tensor *out);

#ifdef __cplusplus
}
#endif

#endif
