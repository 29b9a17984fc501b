/* One field of one page as f32, for inspection and tests. */
#include "../common.cuh"
#include "../layout.cuh"

namespace ps {
namespace {

constexpr int kThreads = 256;

struct ReadParams {
  CacheView cache;
  float *out;
  int32_t layer, page, field;
};

/* out [Hk, S, d], [Hk, d] or [Hk] */
template <typename T, typename Kv>
__global__ void __launch_bounds__(kThreads) read_kernel(const __grid_constant__ ReadParams p) {
  let_next_start();
  wait_for_previous();
  const CacheView &cache = p.cache;
  const Layout layout(cache.desc);
  const int64_t head = blockIdx.x, d = layout.head_dim;
  if (p.field == PS_FIELD_STD) {
    if (threadIdx.x == 0) p.out[head] = cache.std[layout.page(p.layer, head, p.page)];
    return;
  }
  const void *const pools[] = {cache.keys, cache.values, cache.mean, nullptr, cache.variance, cache.min, cache.max};
  if (p.field <= PS_FIELD_VALUES) {
    const Kv *numbers = static_cast<const Kv *>(pools[p.field]) + layout.tokens(p.layer, head, p.page);
    const float *scales = p.field == PS_FIELD_KEYS ? cache.key_scale : cache.value_scale;
    for (int64_t i = threadIdx.x; i < layout.page_size * d; i += kThreads) {
      const float scale = kIsScaled<Kv> ? scales[layout.token(p.layer, head, p.page) + i / d] : 1.f;
      p.out[head * layout.page_size * d + i] = to_float(numbers[layout.inside(sizeof(Kv), i / d, i % d)]) * scale;
    }
    return;
  }
  const int64_t row = layout.vector(p.layer, head, p.page);
  const bool scaled = p.field == PS_FIELD_MEAN && cache.mean_scale;
  const float scale = scaled ? cache.mean_scale[layout.page(p.layer, head, p.page)] : 1.f;
  for (int64_t i = threadIdx.x; i < d; i += kThreads) {
    __nv_fp8_e4m3 small;
    if (scaled) small.__x = static_cast<const __nv_fp8_storage_t *>(cache.mean)[row + i];
    p.out[head * d + i] = scaled ? static_cast<float>(small) * scale : to_float(static_cast<const T *>(pools[p.field])[row + i]);
  }
}

}  // namespace

void cache_read(Backend &backend, const CacheView &cache, int32_t layer, int32_t page, ps_cache_field field, float *out) {
  const ps_cache_desc &desc = cache.desc;
  const int64_t width = field <= PS_FIELD_VALUES ? int64_t(desc.page_size) * desc.head_dim : field == PS_FIELD_STD ? 1 : desc.head_dim;
  const int64_t bytes = desc.num_kv_heads * width * int64_t(sizeof(float));
  const ReadParams params{cache, static_cast<float *>(scratch(backend, bytes)), layer, page, field};
  with_cache_types(desc, [&](auto type, auto kv) {
    launch(backend, "Could not launch cache_read", read_kernel<decltype(type), decltype(kv)>, dim3(static_cast<unsigned>(desc.num_kv_heads)),
           dim3(kThreads), 0, params);
  });
  memory_read(backend, out, params.out, bytes);
}

}  // namespace ps
