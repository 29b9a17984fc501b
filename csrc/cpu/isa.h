/* The kernels of one instruction set; csrc/cpu/isa_*.cpp compile the same kernels/ for each. */
#pragma once

#include "../params.h"
#include "thread_pool.h"

namespace ps {

struct Kernels {
  const char *name;
  void (*scan)(ThreadPool &, const ScanParams &);
  void (*weight_write)(ThreadPool &, const WeightWriteParams &);
  void (*embedding)(ThreadPool &, const EmbeddingParams &);
  void (*rms_norm)(ThreadPool &, const RmsNormParams &);
  void (*rope_table)(ThreadPool &, const RopeTableParams &);
  void (*rope)(ThreadPool &, const RopeParams &);
  void (*silu_mul)(ThreadPool &, const GatedParams &);
  void (*matmul)(ThreadPool &, const MatmulParams &);
  void (*matmul_quantized)(ThreadPool &, const MatmulParams &);
  void (*add)(ThreadPool &, const AddParams &);
  void (*argmax)(ThreadPool &, const ArgmaxParams &);
  void (*sample)(ThreadPool &, const SampleParams &);
  void (*route_experts)(ThreadPool &, const RouteExpertsParams &);
  void (*scatter_add)(ThreadPool &, const ScatterAddParams &);
  void (*gelu_mul)(ThreadPool &, const GatedParams &);
  void (*scale)(ThreadPool &, const ScaleParams &);
  void (*append_kv)(ThreadPool &, const AppendKvParams &);
  void (*page_statistics)(ThreadPool &, const PageStatisticsParams &);
  void (*page_score)(ThreadPool &, const PageScoreParams &);
  void (*page_select)(ThreadPool &, const PageSelectParams &);
  void (*decode_attention)(ThreadPool &, const DecodeAttentionParams &);
  void (*page_mass)(ThreadPool &, const PageMassParams &);
  void (*prefill_choose)(ThreadPool &, const PrefillChooseParams &);
  void (*prefill_attention)(ThreadPool &, const PrefillAttentionParams &);
};

extern const Kernels kPortableKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
void matmul_quantized_vnni(ThreadPool &, const MatmulParams &);
void matmul_amx(ThreadPool &, const MatmulParams &);
void matmul_quantized_amx(ThreadPool &, const MatmulParams &);
void prefill_attention_amx(ThreadPool &, const PrefillAttentionParams &);
#elif defined(__aarch64__)
void matmul_quantized_neondot(ThreadPool &, const MatmulParams &);
void matmul_neonbf16(ThreadPool &, const MatmulParams &);
void matmul_quantized_neonbf16(ThreadPool &, const MatmulParams &);
#endif

/* The best instruction set of this processor, or the one in the environment variable PAGESIFT_ISA: portable, avx2, avx512, avx512vnni or amx;
 * on arm64 neon, neondot or neonbf16. */
const Kernels &choose_kernels();

/* Fewest tokens that one task of decode attention reads; see decode_attention_splits. */
constexpr int64_t kSplitTokens = 256;
constexpr int64_t kMaxSplits = 64;

}  // namespace ps
