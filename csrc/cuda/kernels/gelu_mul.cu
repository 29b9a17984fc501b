/* out = gelu(gate) * up, with the tanh form of gelu. */
#include "gated.cuh"

namespace ps {

void gelu_mul(Backend &backend, const GatedParams &params) { launch_gated<Gelu>(backend, "Could not launch gelu_mul", params); }

}  // namespace ps
