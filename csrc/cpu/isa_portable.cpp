/* Compiled with the flags that scripts/build.ts gives this file. */
#define PS_ISA isa_portable
#include "kernels/all.h"

namespace ps {
extern const Kernels kPortableKernels = PS_ISA::kernels("portable");
}
