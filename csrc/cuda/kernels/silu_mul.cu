/* out = gate / (1 + e^-gate) * up. */
#include "gated.cuh"

namespace ps {
namespace {

struct Silu {
  static __device__ __forceinline__ float of(float x) {
    const float limited = max_nan(x, -88.f); /* e^88 is the last power that is finite */
    return limited / (expf(-limited) + 1.f);
  }
};

}  // namespace

void silu_mul(Backend &backend, const GatedParams &params) { launch_gated<Silu>(backend, "Could not launch silu_mul", params); }

}  // namespace ps
