/* Causal attention of a chunk of tokens of one sequence over its pages: which kernel runs, and with what grid. */
#include "prefill_attention_kernels.cuh"

#include <algorithm>

#include "prefill_attention_generic.cuh"
#include "prefill_attention_mma.cuh"
#include "prefill_attention_wgmma.cuh"

namespace ps {
namespace prefill {

/* Keys and values that blocks running side by side should share in the L2 cache. */
constexpr int64_t kSharedCacheBytes = 24 << 20;

static int64_t number_bytes(const ps_cache_desc &desc) { return desc.dtype == PS_F32 ? 4 : 2; }

static bool has_wgmma(int64_t head_dim) { return head_dim == 64 || head_dim == 128 || head_dim == 256; }
static bool has_mma(int64_t head_dim) { return head_dim == 96 || has_wgmma(head_dim); }

Kernel choose(const Backend &backend, const ps_cache_desc &desc) {
  if (desc.dtype == PS_F32) return Kernel::kGeneric;
  if (backend.capability == 90 && has_wgmma(desc.head_dim)) return Kernel::kWgmma;
  return has_mma(desc.head_dim) ? Kernel::kMma : Kernel::kGeneric;
}

template <typename Function>
static void start(Backend &backend, const PrefillAttentionParams &p, Function kernel, int64_t rows, int threads, int64_t shared_bytes) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t all_rows = p.tokens * (desc.num_query_heads / desc.num_kv_heads);
  const int64_t cached = (p.start + p.tokens) * desc.head_dim * 2 * number_bytes(desc); /* bytes a KV head */
  Args args{p, backend.bad_index, ceil_div(all_rows, rows), 0, false};
  args.together = static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(desc.num_kv_heads, kSharedCacheBytes / cached)));
  const auto address = reinterpret_cast<uintptr_t>(p.q.data) | reinterpret_cast<uintptr_t>(p.out.data);
  args.vectors = address % 16 == 0 && p.q.stride % 4 == 0 && p.out.stride % 4 == 0;
  const dim3 grid(static_cast<unsigned>(args.tiles * desc.num_kv_heads));
  launch(backend, "Could not launch prefill_attention", kernel, grid, dim3(threads), shared_bytes, args);
}

template <typename T, int kBlocks>
static void start_generic(Backend &backend, const PrefillAttentionParams &p) {
  start(backend, p, prefill_attention_generic<T, kBlocks>, kGenericRows, kGenericThreads,
        sizeof(GenericShared) + kTokensAtOnce * kBlocks * 64 * sizeof(float));
}

template <typename T>
static void run_generic(Backend &backend, const PrefillAttentionParams &p) {
  const int32_t head_dim = p.cache.desc.head_dim;
  if (head_dim <= 64) start_generic<T, 1>(backend, p);
  else if (head_dim <= 128) start_generic<T, 2>(backend, p);
  else if (head_dim <= 256) start_generic<T, 4>(backend, p);
  else start_generic<T, 8>(backend, p);
}

template <typename T, int D>
static void start_mma(Backend &backend, const PrefillAttentionParams &p) {
  start(backend, p, prefill_attention_mma<T, D>, MmaPlan<D>::kRows, kMmaThreads, MmaPlan<D>::kBytes);
}

template <typename T>
static void run_mma(Backend &backend, const PrefillAttentionParams &p) {
  const int32_t head_dim = p.cache.desc.head_dim;
  if (head_dim == 64) start_mma<T, 64>(backend, p);
  else if (head_dim == 96) start_mma<T, 96>(backend, p);
  else if (head_dim == 128) start_mma<T, 128>(backend, p);
  else start_mma<T, 256>(backend, p);
}

template <typename T, int D>
static void start_wgmma(Backend &backend, const PrefillAttentionParams &p) {
  start(backend, p, prefill_attention_wgmma<T, D>, kWgmmaRows, kWgmmaThreads, WgmmaPlan<D>::kBytes);
}

template <typename T>
static void run_wgmma(Backend &backend, const PrefillAttentionParams &p) {
  const int32_t head_dim = p.cache.desc.head_dim;
  if (head_dim == 64) start_wgmma<T, 64>(backend, p);
  else if (head_dim == 128) start_wgmma<T, 128>(backend, p);
  else start_wgmma<T, 256>(backend, p);
}

void run(Backend &backend, const PrefillAttentionParams &p, Kernel kernel) {
  with_dtype(p.cache.desc.dtype, [&](auto type) {
    using T = decltype(type);
    if constexpr (std::is_same<T, float>::value) {
      run_generic<T>(backend, p);
    } else {
      if (kernel == Kernel::kWgmma) run_wgmma<T>(backend, p);
      else if (kernel == Kernel::kMma) run_mma<T>(backend, p);
      else run_generic<T>(backend, p);
    }
  });
}

}  // namespace prefill

void prefill_attention(Backend &backend, const PrefillAttentionParams &params) {
  prefill::run(backend, params, prefill::choose(backend, params.cache.desc));
}

}  // namespace ps
