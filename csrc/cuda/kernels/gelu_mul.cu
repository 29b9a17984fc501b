/* out = gelu(gate) * up, with the tanh form of gelu. (1 + tanh(u)) / 2 = 1 / (1 + e^-2u) needs one exponential and keeps the digits of
 * small results. */
#include "gated.cuh"

namespace ps {
namespace {

struct Gelu {
  static __device__ __forceinline__ float of(float x) {
    const float limited = max_nan(x, -10.f); /* gelu(-10) is -1e-37, and e^-2u is finite up to there */
    const float twice_u = limited * fmaf(limited * limited, 0.0713548162726009f, 1.5957691216057308f);
    return limited / (expf(-twice_u) + 1.f);
  }
};

}  // namespace

void gelu_mul(Backend &backend, const GatedParams &params) { launch_gated<Gelu>(backend, "Could not launch gelu_mul", params); }

}  // namespace ps
