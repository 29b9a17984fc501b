/* Which experts a token goes to: the k largest of the softmax of its router logits. A warp a token; k passes over its logits, which
 * stay in the first cache: bound by latency. */
#include "../common.cuh"

namespace ps {
namespace {

constexpr int kWarps = 4; /* tokens per block */

/* Grows with the logit, and among equal ones with a lower index. NaN is below every number, but wins as the first expert that is
 * free, as in a scan where nothing is larger than it. */
__device__ __forceinline__ uint64_t rank_of(float logit, int expert, int first_free) {
  const unsigned bits = __float_as_uint(logit + 0.f); /* -0 becomes 0: they are equal */
  unsigned ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  if (logit != logit) ordered = expert == first_free ? ~0u : 0u;
  return uint64_t(ordered) << 32 | ~static_cast<unsigned>(expert);
}

/* The best expert whose bit in taken [ceil(experts / 32)] is not set; the same in every lane. */
__device__ __forceinline__ int best_free(const float *logits, const unsigned *taken, int experts) {
  const int lane = threadIdx.x % kWarp;
  int word = 0;
  while (taken[word] == ~0u) word++;
  const int first_free = word * kWarp + __ffs(~taken[word]) - 1;
  uint64_t best = 0;
  for (int expert = word * kWarp + lane; expert < experts; expert += kWarp) {
    if (taken[expert / kWarp] >> lane & 1) continue;
    const uint64_t rank = rank_of(logits[expert], expert, first_free);
    best = rank > best ? rank : best;
  }
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const uint64_t other = __shfl_xor_sync(kAllLanes, best, distance);
    best = other > best ? other : best;
  }
  return static_cast<int>(~static_cast<unsigned>(best));
}

__global__ void __launch_bounds__(kWarps *kWarp) route_experts_kernel(RouteExpertsParams p) {
  extern __shared__ unsigned taken_of_block[]; /* [kWarps, ceil(experts / 32)] */
  wait_for_previous();
  let_next_start();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, experts = static_cast<int>(p.experts);
  const int words = (experts + kWarp - 1) / kWarp;
  const int64_t token = int64_t(blockIdx.x) * kWarps + warp;
  if (token >= p.tokens) return;
  unsigned *taken = taken_of_block + warp * words;
  for (int word = lane; word < words; word += kWarp) taken[word] = 0;
  const float *logits = p.logits.row(token);
  float *weights = p.weights.row(token);
  float maximum = logits[0], total = 0, kept = 0;
  for (int expert = lane; expert < experts; expert += kWarp) maximum = fmaxf(maximum, logits[expert]);
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, distance));
  }
  for (int expert = lane; expert < experts; expert += kWarp) total += expf(logits[expert] - maximum); /* a NaN spreads from here */
  total = warp_sum(total);
  for (int64_t place = 0; place < p.k; place++) {
    __syncwarp();
    const int best = best_free(logits, taken, experts);
    const float weight = expf(logits[best] - maximum) / total;
    kept += weight;
    __syncwarp();
    if (lane > 0) continue;
    taken[best / kWarp] |= 1u << best % kWarp;
    p.chosen.row(token)[place] = best;
    weights[place] = weight;
  }
  __syncwarp();
  for (int64_t place = lane; p.normalize && place < p.k; place += kWarp) weights[place] /= kept;
}

}  // namespace

void route_experts(Backend &backend, const RouteExpertsParams &params) {
  const int64_t shared_bytes = kWarps * ceil_div(params.experts, kWarp) * int64_t(sizeof(unsigned));
  launch(backend, "Could not launch route_experts", route_experts_kernel, dim3(static_cast<unsigned>(ceil_div(params.tokens, kWarps))),
         kWarps * kWarp, shared_bytes, params);
}

}  // namespace ps
