/* Causal attention of a chunk of tokens of one sequence over its pages: which kernel runs, and with what grid. */
#include "prefill_attention_kernels.cuh"

#include <algorithm>

#include "pack.cuh"
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
  const int64_t group = desc.num_query_heads / desc.num_kv_heads;
  const int64_t cached = (p.start + p.tokens) * desc.head_dim * 2 * number_bytes(desc); /* bytes a KV head */
  Args args{p, backend.bad_index, ceil_div(p.tokens * group, rows), 0, false, 1};
  if (p.selected) {
    args.parts = static_cast<int32_t>(ceil_div(std::min(p.tile_tokens, p.tokens) * group, rows));
    args.tiles = p.tiles().count() * args.parts;
  }
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

namespace {

constexpr int kWidenThreads = 128;
constexpr int kWidenNumbers = 8; /* that lie side by side in pages of every type */
constexpr int64_t kAlignmentBytes = 256;

int64_t aligned(int64_t bytes) { return ceil_div(bytes, kAlignmentBytes) * kAlignmentBytes; }

/* Bytes of one layer's keys of the longest sequence, as numbers of the cache's dtype. */
int64_t wide_keys_bytes(const ps_cache_desc &desc) {
  return aligned(desc.max_pages_per_sequence * desc.page_size * desc.num_kv_heads * desc.head_dim * prefill::number_bytes(desc));
}

struct WidenLaunch {
  CacheView narrow, wide;
  const int32_t *page_table;
  int32_t *wide_table;
  BadIndex *bad_index;
  int32_t layer, first_page;
};

/* Grid: pages of the sequence from first_page on in x, KV heads in y. Page i of the sequence becomes page i of the wide cache. */
template <typename T, typename Kv>
__global__ void __launch_bounds__(kWidenThreads) widen_kernel(const __grid_constant__ WidenLaunch launch) {
  let_next_start();
  wait_for_previous();
  const Layout narrow(launch.narrow.desc), wide(launch.wide.desc);
  const int32_t page = launch.first_page + static_cast<int32_t>(blockIdx.x), head = static_cast<int32_t>(blockIdx.y);
  const int32_t physical = checked_page(launch.bad_index, launch.page_table, 0, page, narrow.pages);
  if (head == 0 && threadIdx.x == 0) launch.wide_table[page] = page;
  const int64_t from = narrow.tokens(launch.layer, head, physical), to = wide.tokens(0, head, page),
                scale = narrow.token(launch.layer, head, physical);
  auto widen = [&](const void *numbers, const float *scales, void *out, int place, int dim) {
    using Wide = Pack<T, kWidenNumbers>;
    const Pack<float, kWidenNumbers> x = load_pack<kWidenNumbers>(static_cast<const Kv *>(numbers) + from + narrow.inside(sizeof(Kv), place, dim));
    Wide y;
#pragma unroll
    for (int i = 0; i < kWidenNumbers; i++) store_number(&y.value[i], x.value[i] * scales[scale + place]);
    *reinterpret_cast<Wide *>(static_cast<T *>(out) + to + wide.inside(sizeof(T), place, dim)) = y;
  };
  const int row_packs = static_cast<int>(narrow.head_dim) / kWidenNumbers, packs = static_cast<int>(narrow.page_size) * row_packs;
  for (int i = threadIdx.x; i < packs; i += kWidenThreads) {
    const int place = i / row_packs, dim = i % row_packs * kWidenNumbers;
    widen(launch.narrow.keys, launch.narrow.key_scale, launch.wide.keys, place, dim);
    widen(launch.narrow.values, launch.narrow.value_scale, launch.wide.values, place, dim);
  }
}

/* Writes the pages that the chunk sees to scratch, and returns the call as one on these: products of a prompt are bound by arithmetic, and
 * their kernels read numbers that tensor cores take. */
PrefillAttentionParams widen_pages(Backend &backend, const PrefillAttentionParams &params) {
  const ps_cache_desc &desc = params.cache.desc;
  char *scratch = static_cast<char *>(params.cache.scratch);
  PrefillAttentionParams out = params;
  out.cache.desc.kv_type = PS_KV_DTYPE;
  out.cache.desc.num_layers = 1;
  out.cache.desc.num_pages = desc.max_pages_per_sequence;
  out.cache.keys = scratch;
  out.cache.values = scratch + wide_keys_bytes(desc);
  out.layer = 0;
  auto *table = reinterpret_cast<int32_t *>(scratch + 2 * wide_keys_bytes(desc));
  out.page_table = table;
  const int64_t oldest = params.window > 0 ? std::max<int64_t>(0, params.start - params.window + 1) : 0;
  const int32_t first = static_cast<int32_t>(oldest / desc.page_size);
  const int64_t pages = ceil_div(params.start + params.tokens, int64_t(desc.page_size)) - first;
  const WidenLaunch widen{params.cache, out.cache, params.page_table, table, backend.bad_index, params.layer, first};
  with_cache_types(desc, [&](auto type, auto kv) {
    using T = decltype(type);
    using Kv = decltype(kv);
    if constexpr (kIsScaled<Kv>) {
      launch(backend, "Could not launch the conversion of pages", widen_kernel<T, Kv>,
             dim3(static_cast<unsigned>(pages), static_cast<unsigned>(desc.num_kv_heads)), dim3(kWidenThreads), 0, widen);
    }
  });
  return out;
}

}  // namespace

int64_t prefill_scratch_bytes(const ps_cache_desc &desc) {
  if (desc.kv_type == PS_KV_DTYPE) return 0;
  return 2 * wide_keys_bytes(desc) + aligned(desc.max_pages_per_sequence * int64_t(sizeof(int32_t)));
}

void prefill_attention(Backend &backend, const PrefillAttentionParams &params) {
  const PrefillAttentionParams wide = params.cache.desc.kv_type == PS_KV_DTYPE ? params : widen_pages(backend, params);
  prefill::run(backend, wide, prefill::choose(backend, wide.cache.desc));
}

}  // namespace ps
