#include <cstdlib>
#include <cstring>

#include "../backend.h"
#include "isa.h"
#include "processors.h"

namespace ps {

#if defined(__x86_64__)
namespace {

Kernels with_vnni(Kernels kernels) {
  kernels.name = "avx512vnni";
  kernels.matmul_quantized = matmul_quantized_vnni;
  return kernels;
}

Kernels with_amx(Kernels kernels) {
  kernels.name = "amx";
  kernels.matmul = matmul_amx;
  kernels.matmul_quantized = matmul_quantized_amx;
  kernels.prefill_attention = prefill_attention_amx;
  return kernels;
}

}  // namespace
#elif defined(__aarch64__)
namespace {

Kernels with_dot(Kernels kernels) {
  kernels.name = "neondot";
  kernels.matmul_quantized = matmul_quantized_neondot;
  return kernels;
}

Kernels with_bf16(Kernels kernels) {
  kernels.name = "neonbf16";
  kernels.matmul = matmul_neonbf16;
  kernels.matmul_quantized = matmul_quantized_neonbf16;
  return kernels;
}

}  // namespace
#endif

const Kernels &choose_kernels() {
  const char *asked = std::getenv("PAGESIFT_ISA");
  const auto wanted = [asked](const Kernels &kernels) { return asked == nullptr || *asked == '\0' || std::strcmp(asked, kernels.name) == 0; };
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); /* every processor with AVX2 has F16C, which clang cannot test */
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  static const Kernels vnni = with_vnni(kAvx512Kernels);
  static const Kernels amx = with_amx(vnni);
  const bool bytes = avx512 && __builtin_cpu_supports("avx512vnni");
  if (bytes && wanted(amx) && request_amx()) return amx;
  if (bytes && wanted(vnni)) return vnni;
  if (avx512 && wanted(kAvx512Kernels)) return kAvx512Kernels;
  if (avx2 && wanted(kAvx2Kernels)) return kAvx2Kernels;
#elif defined(__aarch64__)
  static const Kernels dot = with_dot(kPortableKernels);
  static const Kernels bf16 = with_bf16(dot);
  const ArmFeatures features = arm_features();
  if (features.dot && features.bf16 && wanted(bf16)) return bf16;
  if (features.dot && wanted(dot)) return dot;
#endif
  if (wanted(kPortableKernels)) return kPortableKernels;
  throw Error(PS_UNSUPPORTED, std::string("This machine does not support PAGESIFT_ISA=") + asked + "; unset it to use the best instruction set");
}

}  // namespace ps
