/* out = gate / (1 + e^-gate) * up. */
#include "gated.cuh"

namespace ps {

void silu_mul(Backend &backend, const GatedParams &params) { launch_gated<Silu>(backend, "Could not launch silu_mul", params); }

}  // namespace ps
