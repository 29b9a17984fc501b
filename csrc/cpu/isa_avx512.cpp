/* Compiled with the flags that scripts/release/build.ts gives this file. The table is a constant expression: code that ran at load time
 * would run on processors that lack the instructions. */
#define PS_ISA isa_avx512
#include "kernels/all.h"

namespace ps {
extern const Kernels kAvx512Kernels = PS_ISA::kernels("avx512");
}
