/* What a build (csrc/cpu, csrc/cuda) provides to the shared C calls in csrc/api. Failures are thrown as ps::Error;
 * csrc/api/handles.h turns them into a status. */
#pragma once

#include <functional>
#include <stdexcept>
#include <string>

#include "params.h"

namespace ps {

/* A failure with the status that the C call returns and the line of text that it leaves on the device. */
class Error : public std::runtime_error {
 public:
  Error(ps_status status, const std::string &message) : std::runtime_error(message), status(status) {}
  const ps_status status;
};

struct Backend; /* defined by each build: thread pool and instruction set, or stream and handles */

extern const ps_backend kBackendKind;
Backend *backend_open(const ps_device_options &options);
void backend_close(Backend *backend);
void backend_describe(Backend &backend, ps_device_info &out); /* all but allocated_bytes */
void backend_wait(Backend &backend);

void *memory_allocate(Backend &backend, int64_t bytes); /* zeroed */
void memory_free(Backend &backend, void *memory, int64_t bytes);
void memory_write(Backend &backend, void *target, const void *source, int64_t bytes);
void memory_read(Backend &backend, void *target, const void *source, int64_t bytes);
constexpr int64_t kLetterBytes = 1024; /* of a read that is started and finished later */
constexpr int kMostLetters = 4;        /* such reads at once; they end in the order in which they began */
void memory_read_start(Backend &backend, const void *source, int64_t bytes);
void memory_read_finish(Backend &backend, void *target, int64_t bytes);
/* Runs task(index) for every index in [0, count) on the processors, in any order, several at a time. Tasks must not throw. */
void run_on_host(Backend &backend, int64_t count, const std::function<void(int64_t)> &task);
/* Rows of `width` bytes, which begin `pitch` bytes apart. */
void memory_write_rows(Backend &backend, void *target, int64_t target_pitch, const void *source, int64_t source_pitch, int64_t width, int64_t rows);
void memory_read_rows(Backend &backend, void *target, int64_t target_pitch, const void *source, int64_t source_pitch, int64_t width, int64_t rows);

void graph_begin(Backend &backend);
void *graph_end(Backend &backend);
void graph_launch(Backend &backend, void *graph);
void graph_close(Backend &backend, void *graph);

void scan(Backend &backend, const ScanParams &params);
void weight_write_blocks(Backend &backend, const WeightWriteParams &params);
void embedding(Backend &backend, const EmbeddingParams &params);
void rms_norm(Backend &backend, const RmsNormParams &params);
void add_rms_norm(Backend &backend, const AddRmsNormParams &params);
void rope_table(Backend &backend, const RopeTableParams &params);
void rope(Backend &backend, const RopeParams &params);
void silu_mul(Backend &backend, const GatedParams &params);
void matmul(Backend &backend, const MatmulParams &params);
void fused_matmul(Backend &backend, const FusedMatmulParams &params);
void add(Backend &backend, const AddParams &params);
void argmax(Backend &backend, const ArgmaxParams &params);
void sample(Backend &backend, const SampleParams &params);
void route_experts(Backend &backend, const RouteExpertsParams &params);
void scatter_add(Backend &backend, const ScatterAddParams &params);
void gelu_mul(Backend &backend, const GatedParams &params);
void scale(Backend &backend, const ScaleParams &params);

extern const bool kKeepsGroups; /* whether caches keep statistics of groups of pages */
bool keeps_coarse(const ps_cache_desc &desc); /* whether a cache has coarse copies of its statistics */
int64_t cache_scratch_bytes(const ps_cache_desc &desc);
void append_kv(Backend &backend, const AppendKvParams &params);
void append_rotated(Backend &backend, const AppendRotatedParams &params);
void page_statistics(Backend &backend, const PageStatisticsParams &params);
void page_score(Backend &backend, const PageScoreParams &params);
void page_select(Backend &backend, const PageSelectParams &params);
void page_choose(Backend &backend, const PageChooseParams &params);
void decode_attention(Backend &backend, const DecodeAttentionParams &params);
/* append_rotated, then decode_attention without a selection, of the same layer; the contents of q are undefined afterwards. */
void append_attend(Backend &backend, const AppendRotatedParams &append, const DecodeAttentionParams &attend);
void page_mass(Backend &backend, const PageMassParams &params);
void sparse_attention(Backend &backend, const SparseAttentionParams &params);
/* append_rotated, then sparse_attention of the same layer; the contents of q are undefined afterwards. */
void append_sparse_attention(Backend &backend, const AppendRotatedParams &append, const SparseAttentionParams &attend);
void prefill_choose(Backend &backend, const PrefillChooseParams &params);
void prefill_attention(Backend &backend, const PrefillAttentionParams &params);
void cache_read(Backend &backend, const CacheView &cache, int32_t layer, int32_t page, ps_cache_field field, float *out);

}  // namespace ps
