/* Whole pages between a cache and main memory, bit for bit. The bytes of a field are [layers, Hk, count, one unit], one field after another;
 * those of the members of a group follow each other. */
#include <array>

#include "cache_units.h"
#include "tensors.h"

using namespace ps;

namespace {

/* Units that follow each other in the pool as they do in `pages` are copied together. */
int64_t run_length(const int32_t *pages, int64_t count, int64_t first, int32_t unit_pages) {
  int64_t next = first + 1;
  while (next < count && pages[next] == pages[next - 1] + unit_pages) next++;
  return next - first;
}

void check_units(ps_cache &cache, const int32_t *pages, int64_t count, const void *memory, int64_t bytes) {
  require_running(*cache.device);
  const ps_cache_desc &desc = cache.here().desc;
  const int64_t unit = unit_bytes(desc) * static_cast<int64_t>(cache.views.size());
  const int32_t unit_pages = pages_of_unit(desc);
  require(count >= 0 && count <= desc.num_pages, "count is ", count, ", expected 0 to ", int64_t(desc.num_pages));
  require(count == 0 || (pages != nullptr && memory != nullptr), "pages or the memory for them is NULL");
  require(bytes == count * unit, "The pages have ", count * unit, " bytes, but the memory has ", bytes);
  for (int64_t i = 0; i < count; i++) {
    const bool starts = pages[i] >= 0 && pages[i] < desc.num_pages && pages[i] % unit_pages == 0;
    require(starts, "Page ", int64_t(pages[i]), " is outside the pool, or not the first of a group");
  }
}

/* Where the bytes of the current member begin. */
int64_t share_of_member(const ps_cache &cache, int64_t bytes) {
  return bytes / static_cast<int64_t>(cache.views.size()) * static_cast<int64_t>(cache.device->member);
}

/* Calls copy(place in the pool, place in memory, pitch of the pool, pitch of memory, width, rows) for every run of units and every field. */
template <typename Copy>
void for_every_run(const CacheView &view, const int32_t *pages, int64_t count, Copy &&copy) {
  const int64_t rows = int64_t(view.desc.num_layers) * view.desc.num_kv_heads;
  const int32_t unit_pages = pages_of_unit(view.desc);
  const int64_t pool_units = view.desc.num_pages / unit_pages;
  int64_t offset = 0;
  const std::array<void *, kPools> pools = pools_of(view);
  const std::array<int64_t, kPools> unit = pool_bytes(view.desc);
  for (int pool = 0; pool < kPools; pool++) {
    const int64_t bytes = unit[pool];
    if (bytes == 0) continue;
    for (int64_t first = 0; first < count;) {
      const int64_t run = run_length(pages, count, first, unit_pages);
      copy(static_cast<char *>(pools[pool]) + pages[first] / unit_pages * bytes, offset + first * bytes, pool_units * bytes, count * bytes,
           run * bytes, rows);
      first += run;
    }
    offset += rows * count * bytes;
  }
}

}  // namespace

extern "C" {

int32_t ps_cache_export(ps_cache *cache, const int32_t *pages, int64_t count, void *out, int64_t bytes) {
  return guard_child(cache, [&] {
    check_units(*cache, pages, count, out, bytes);
    for_members(*cache->device, [&] {
      char *const target = static_cast<char *>(out) + share_of_member(*cache, bytes);
      for_every_run(cache->here(), pages, count,
                    [&](const char *pool, int64_t offset, int64_t pool_pitch, int64_t pitch, int64_t width, int64_t rows) {
                      memory_read_rows(*cache->device->backend, target + offset, pitch, pool, pool_pitch, width, rows);
                    });
    });
  });
}

int32_t ps_cache_import(ps_cache *cache, const int32_t *pages, int64_t count, const void *source, int64_t bytes) {
  return guard_child(cache, [&] {
    check_units(*cache, pages, count, source, bytes);
    for_members(*cache->device, [&] {
      const char *const from = static_cast<const char *>(source) + share_of_member(*cache, bytes);
      for_every_run(cache->here(), pages, count, [&](char *pool, int64_t offset, int64_t pool_pitch, int64_t pitch, int64_t width, int64_t rows) {
        memory_write_rows(*cache->device->backend, pool, pool_pitch, from + offset, pitch, width, rows);
      });
    });
  });
}

}  // extern "C"
