/* Compiled with the flags that scripts/build.ts gives this file. */
#define PS_ISA isa_avx2
#include "kernels/all.h"

namespace ps {
extern const Kernels kAvx2Kernels = PS_ISA::kernels("avx2");
}
