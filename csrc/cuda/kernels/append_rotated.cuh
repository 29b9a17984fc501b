/* Norm and rotation of a head, and the append of a single token: what append_rotated.cu and append_attend.cu share. */
#pragma once

#include "append_kv.cuh"
#include "pack.cuh"

namespace ps {

constexpr int kNumbers = 4;                  /* of a head, in a lane's pack */
constexpr int kPackWidth = kWarp * kNumbers; /* of a head, that a warp loads at once */
constexpr int kMostHeadDim = 512;
template <int Packs>
constexpr int kDimsAThread = Packs == 1 ? 1 : kNumbersAThread; /* of a head, per thread that computes statistics: fewer take less code */
static_assert(kPackWidth <= kStatisticsThreads && kMostHeadDim <= kNumbersAThread * kStatisticsThreads, "Every dimension has a thread");
constexpr int64_t kFewAppended = 256; /* more are a prompt, whose bytes count: the parts read and write in longer rows */

__device__ __forceinline__ Pack<float, kNumbers> load_typed(const Typed &row, int64_t index) {
  if (row.dtype == PS_F32) return load_pack<kNumbers>(static_cast<const float *>(row.data) + index);
  if (row.dtype == PS_F16) return load_pack<kNumbers>(static_cast<const f16 *>(row.data) + index);
  return load_pack<kNumbers>(static_cast<const bf16 *>(row.data) + index);
}

/* Numbers that earlier kernels wrote, from the L2 cache: what the first cache has may have been read before they were done. */
__device__ __forceinline__ Pack<float, kNumbers> load_settled(const float *from) {
  const float4 four = __ldcg(reinterpret_cast<const float4 *>(from));
  return {{four.x, four.y, four.z, four.w}};
}

/* A head normed where there is a weight, and rotated, by one warp into its shared `row` [d]. Packs: d is at most that many times
 * kPackWidth. The arithmetic is that of rms_norm.cu and rope.cu. */
template <int Packs>
__device__ __forceinline__ void rotate_head(const AppendRotatedParams &p, const float *in, const Typed &weight, const float *table, float *row) {
  using Numbers = Pack<float, kNumbers>;
  const int d = p.append.cache.desc.head_dim, pairs = static_cast<int>(p.pairs), own = threadIdx.x % kWarp * kNumbers;
  Numbers x[Packs] = {}, factors[Packs] = {}, cosines[Packs] = {}, sines[Packs] = {};
#pragma unroll
  for (int i = 0; i < Packs; i++) { /* all at once */
    const int at = own + i * kPackWidth;
    if (at < d) x[i] = load_settled(in + at);
    if (at < d && weight.data != nullptr) factors[i] = load_typed(weight, at);
    if (at < pairs) cosines[i] = load_settled(table + at), sines[i] = load_settled(table + pairs + at);
  }
  if (weight.data != nullptr) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < Packs; i++) {
#pragma unroll
      for (int j = 0; j < kNumbers; j++) squares += x[i].value[j] * x[i].value[j];
    }
    const float scale = 1.f / sqrtf(warp_sum(squares) / static_cast<float>(d) + p.eps);
#pragma unroll
    for (int i = 0; i < Packs; i++) {
#pragma unroll
      for (int j = 0; j < kNumbers; j++) x[i].value[j] = x[i].value[j] * scale * factors[i].value[j];
    }
  }
#pragma unroll
  for (int i = 0; i < Packs; i++) {
    if (own + i * kPackWidth < d) store_pack<kNumbers>(row + own + i * kPackWidth, x[i]);
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < Packs; i++) {
    const int at = own + i * kPackWidth;
    if (at >= pairs) continue;
    Numbers a = load_pack<kNumbers>(row + at), b = load_pack<kNumbers>(row + pairs + at);
#pragma unroll
    for (int j = 0; j < kNumbers; j++) {
      const float first = a.value[j], second = b.value[j];
      a.value[j] = first * cosines[i].value[j] - second * sines[i].value[j];
      b.value[j] = second * cosines[i].value[j] + first * sines[i].value[j];
    }
    store_pack<kNumbers>(row + at, a);
    store_pack<kNumbers>(row + pairs + at, b);
  }
  __syncwarp();
}

/* Appends a token of the call to a KV head, where no other lies in its page or group, and no kernel under way writes pages of its layer: then
 * its page's other keys and the statistics of the pages of its group are loaded while the previous kernel still runs, and behind it one
 * trip to memory remains. All threads of the block call; those beyond kStatisticsThreads have no dimensions, so a head may have no more
 * than that where there are some. row: shared memory for a head; shared [kWarp]. Lets the next kernel start. */
template <typename T, typename Kv, bool Grouped, int Packs>
__device__ void append_token(const AppendRotatedParams &p, int64_t token, int head, BadIndex *bad_index, float *row, float *shared) {
  constexpr int kDims = kDimsAThread<Packs>;
  const AppendKvParams &append = p.append;
  const CacheView &cache = append.cache;
  const ps_cache_desc &desc = cache.desc;
  const int d = desc.head_dim;
  const int64_t limit = desc.num_pages * desc.page_size;
  const int32_t slot = append.slots[token];
  if (slot < 0 || slot >= limit) {
    wait_for_previous();
    if (threadIdx.x == 0) note_bad_index(bad_index, kSlots, token, slot, limit);
    return;
  }
  const int32_t physical = slot / desc.page_size, place = slot % desc.page_size;
  const PageRows<Kv> page = page_rows<Kv>(cache, append.layer, head, physical);
  const Layout layout(desc);
  float keys[kDims][kAtOnce] = {};
#pragma unroll
  for (int n = 0; n < kDims; n++) {
    const int dim = threadIdx.x + n * kStatisticsThreads;
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) keys[n][i] = dim < d && i < place ? to_float(page.keys[layout.inside(sizeof(Kv), i, dim)]) : 0.f;
  }
  GroupPages<kDims> pages;
  if constexpr (Grouped) {
    const Group group(cache, append.layer, head, physical);
    pages.load(cache, group, group.full, T{});
  }

  wait_for_previous();
  const int64_t first = int64_t(head) * d;
  float values[kDims];
#pragma unroll
  for (int n = 0; n < kDims; n++) {
    const int dim = threadIdx.x + n * kStatisticsThreads;
    values[n] = dim < d ? append.v.row(token)[first + dim] : 0.f;
  }
  if (threadIdx.x < kWarp) rotate_head<Packs>(p, p.k.row(token) + first, p.k_norm, p.k_table.row(token), row);
  __syncthreads();
  let_next_start();
#pragma unroll
  for (int n = 0; n < kDims; n++) {
    const int dim = threadIdx.x + n * kStatisticsThreads;
    if (dim >= d) continue;
    const int64_t at = layout.inside(sizeof(Kv), place, dim);
    Kv key;
    store_number(&key, row[dim]);
    page.keys[at] = key;
    store_number(page.values + at, values[n]);
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) keys[n][i] = i == place ? to_float(key) : keys[n][i];
  }
  float mean[kDims] = {};
  const float std = store_statistics<T>(cache, page, [&](int n, int) { return moments_of(keys[n], place + 1); }, mean, shared);
  if constexpr (Grouped) {
    const Group group(cache, append.layer, head, physical);
#pragma unroll
    for (int n = 0; n < kDims; n++) {
#pragma unroll
      for (int i = 0; i < kMaxGroupPages; i++) pages.mean[n][i] = i == group.full ? mean[n] : pages.mean[n][i];
    }
    if (static_cast<int>(threadIdx.x) == group.full) pages.std = std;
    store_group<T>(cache, group, pages, place + 1, shared);
  }
}

/* Whether append_token serves pages of this kind. */
inline bool appends_tokens(const CacheView &cache) { return !cache.key_scale && cache.desc.page_size <= kAtOnce && cache.mean_scale == nullptr; }

/* Whether rows let themselves be read in packs, and fit the warps' memory. */
inline bool can_rotate(const AppendRotatedParams &p) {
  auto fits_norm = [](const Typed &weight) { return weight.data == nullptr || packs_row(weight, kNumbers); };
  return p.append.tokens <= kFewAppended && p.append.cache.desc.head_dim <= kMostHeadDim && p.pairs % kNumbers == 0 && packs(p.q, kNumbers) &&
         packs(p.k, kNumbers) && packs(p.q_table, kNumbers) && packs(p.k_table, kNumbers) && fits_norm(p.q_norm) && fits_norm(p.k_norm);
}

/* Whether an append may share a launch with attention: one token of 16-bit pages, whose heads one pack of a lane holds, and whose statistics one
 * trip to memory renews. */
inline bool joins_attention(const AppendRotatedParams &p, const SequencesView &sequences) {
  const ps_cache_desc &desc = p.append.cache.desc;
  const bool pages = desc.kv_type == PS_KV_DTYPE && desc.dtype != PS_F32 && (desc.head_dim == 64 || desc.head_dim == 128);
  return pages && sequences.sequences == 1 && p.append.tokens == 1 && appends_tokens(p.append.cache) && can_rotate(p);
}

}  // namespace ps
