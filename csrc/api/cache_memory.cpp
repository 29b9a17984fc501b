/* The memory of the KV cache: checks of its description, its layout, creating and closing it. */
#include <memory>

#include "cache_units.h"
#include "tensors.h"

using namespace ps;

namespace {

constexpr int64_t kAlignmentBytes = 256;
constexpr int64_t kMostPoolBytes = int64_t(1) << 46; /* more than any machine has; keeps every sum of a plan below 2^63 */

int64_t aligned(int64_t bytes) { return (bytes + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes; }

void check_desc(const ps_cache_desc *desc) {
  require(desc != nullptr, "The cache description is NULL");
  const ps_cache_desc &d = *desc;
  const bool page_size_ok = d.page_size == 8 || d.page_size == 16 || d.page_size == 32 || d.page_size == 64;
  require(page_size_ok, "Page size ", int64_t(d.page_size), " is not supported; expected 8, 16, 32 or 64");
  require(d.head_dim >= 16 && d.head_dim <= 512 && d.head_dim % 16 == 0, "Head size ", int64_t(d.head_dim),
          " is not supported; expected a multiple of 16 up to 512");
  require(d.num_layers >= 1 && d.num_layers <= 4096, "num_layers must be from 1 to 4096");
  require(d.num_kv_heads >= 1 && d.num_query_heads >= 1 && d.num_query_heads <= 4096 && d.num_query_heads % d.num_kv_heads == 0,
          "num_query_heads must be a multiple of num_kv_heads, at most 4096");
  require(d.dtype == PS_F32 || d.dtype == PS_F16 || d.dtype == PS_BF16, "The dtype of pages must be f32, f16 or bf16");
  require(d.kv_type >= PS_KV_DTYPE && d.kv_type <= PS_KV_FP8, "Unknown kv_type ", int64_t(d.kv_type));
  require(d.statistics >= 0 && d.statistics <= (PS_STATISTICS_VARIANCE | PS_STATISTICS_MIN_MAX | PS_STATISTICS_F8 | PS_STATISTICS_COARSE),
          "Unknown bits in statistics");
  require((d.statistics & PS_STATISTICS_F8) == 0 || d.dtype != PS_F32, "8-bit means require pages of f16 or bf16");
  require((d.statistics & PS_STATISTICS_F8) == 0 || (d.statistics & PS_STATISTICS_COARSE) == 0,
          "Coarse copies require means in the dtype of the pages");
  require(d.max_sequences >= 1 && d.max_sequences <= 65536, "max_sequences must be from 1 to 65536");
  require(d.num_pages >= 1 && d.num_pages <= INT32_MAX / d.page_size, "num_pages must be at least 1, and its slots must fit an i32");
  require(d.group_pages == 0 || d.group_pages == 8, "group_pages must be 0 or 8");
  require(d.group_pages == 0 || d.num_pages % d.group_pages == 0, "num_pages must be a multiple of group_pages");
  require(d.max_pages_per_sequence >= 1 && d.max_pages_per_sequence <= INT32_MAX / d.page_size,
          "max_pages_per_sequence must be at least 1, and its tokens must fit an i32");
}

/* Offsets in the cache's one allocation; -1 for a pool that the cache does not have. */
struct Plan {
  std::array<int64_t, kPools> pools;
  int64_t scratch, counters, total;
  ps_cache_bytes bytes;
};

Plan plan_cache(const ps_cache_desc &desc) {
  const int64_t rows = int64_t(desc.num_layers) * desc.num_kv_heads * desc.num_pages; /* at most 2^52, checked by check_desc */
  const std::array<int64_t, kPools> unit = pool_bytes(desc);
  const int64_t row_bytes = unit[kKeys] / pages_of_unit(desc);
  if (rows > kMostPoolBytes / row_bytes) {
    throw Error(PS_OUT_OF_MEMORY, "Out of memory: a cache of " + std::to_string(rows) + " times " + std::to_string(row_bytes) +
                                      " bytes of keys is larger than any memory");
  }
  Plan plan{};
  auto place = [&plan](int64_t bytes) {
    const int64_t offset = plan.total;
    plan.total += aligned(bytes);
    return offset;
  };
  for (int pool = 0; pool < kPools; pool++) {
    if (pool == kMean) plan.bytes.kv = plan.total;
    plan.pools[pool] = unit[pool] > 0 ? place(rows / pages_of_unit(desc) * unit[pool]) : -1;
  }
  plan.bytes.statistics = plan.total - plan.bytes.kv;
  plan.scratch = place(cache_scratch_bytes(desc));
  plan.counters = place(sizeof(ps_counters));
  plan.bytes.scratch = plan.total - plan.bytes.kv - plan.bytes.statistics;
  plan.bytes.unit = unit_bytes(desc);
  return plan;
}

CacheView view_cache(const ps_cache_desc &desc, const Plan &plan, void *memory) {
  auto at = [memory](int64_t offset) -> void * { return offset < 0 ? nullptr : static_cast<char *>(memory) + offset; };
  auto pool = [&](Pool which) { return at(plan.pools[which]); };
  CacheView view{};
  view.desc = desc;
  view.keys = pool(kKeys);
  view.values = pool(kValues);
  view.key_scale = static_cast<float *>(pool(kKeyScale));
  view.value_scale = static_cast<float *>(pool(kValueScale));
  view.mean = pool(kMean);
  view.mean_scale = static_cast<float *>(pool(kMeanScale));
  view.std = static_cast<float *>(pool(kStd));
  view.variance = pool(kVariance);
  view.min = pool(kMin);
  view.max = pool(kMax);
  view.coarse = static_cast<uint8_t *>(pool(kCoarse));
  view.coarse_scale = static_cast<uint32_t *>(pool(kCoarseScale));
  view.group_mean = pool(kGroupMean);
  view.group_std = static_cast<float *>(pool(kGroupStd));
  view.scratch = at(plan.scratch);
  view.counters = static_cast<ps_counters *>(at(plan.counters));
  return view;
}

}  // namespace

extern "C" {

int32_t ps_cache_measure(ps_device *device, const ps_cache_desc *desc, ps_cache_bytes *out) {
  return guard(device, [&] {
    check_desc(desc);
    require(out != nullptr, "The struct for the sizes of the cache is NULL");
    *out = plan_cache(*desc).bytes;
    out->unit *= static_cast<int64_t>(device->members.size());
  });
}

int32_t ps_cache_create(ps_device *device, const ps_cache_desc *desc, ps_cache **out) {
  return guard(device, [&] {
    check_desc(desc);
    require(out != nullptr, "The pointer for the new cache is NULL");
    const Plan plan = plan_cache(*desc);
    auto cache = std::make_unique<ps_cache>(ps_cache{device, {}, {}, plan.total});
    cache->views.reserve(device->members.size()); /* what fails after the allocation would leave it behind */
    cache->memory = allocate(*device, plan.total);
    for (void *memory : cache->memory) cache->views.push_back(view_cache(*desc, plan, memory));
    *out = cache.release();
    ps_open_handles++;
  });
}

int32_t ps_cache_close(ps_cache *cache) {
  return close_child(cache, [&](ps_device &device) { release(device, cache->memory, cache->bytes); });
}

}  // extern "C"
