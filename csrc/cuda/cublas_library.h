/* Finds cuBLAS. Needs neither its headers nor CUDA's. */
#pragma once

#include <string>

namespace ps {

/* The dlopen handle of cuBLAS 13, the version that the kernels are tested with. Throws PS_UNSUPPORTED where there is none. */
void *open_cublas_library();

/* Throws PS_UNSUPPORTED with the reason and the remedy. */
[[noreturn]] void fail_to_load_cublas(const std::string &reason);

}  // namespace ps
