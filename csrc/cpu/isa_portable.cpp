/* scripts/release/build.ts compiles this file with flags of its own. The table is a constant expression, because code at load time would
 * also run on processors without these instructions. */
#define PS_ISA isa_portable
#include "kernels/all.h"

namespace ps {
#if defined(__aarch64__)
extern const Kernels kPortableKernels = PS_ISA::kernels("neon"); /* part of every arm64 processor */
#else
extern const Kernels kPortableKernels = PS_ISA::kernels("portable");
#endif
}  // namespace ps
