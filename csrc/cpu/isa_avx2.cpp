/* scripts/release/build.ts compiles this file with flags of its own. The table is a constant expression, because code at load time would
 * also run on processors without these instructions. */
#define PS_ISA isa_avx2
#include "kernels/all.h"

namespace ps {
extern const Kernels kAvx2Kernels = PS_ISA::kernels("avx2");
}
