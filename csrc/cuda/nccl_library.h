/* Finds NCCL. Needs neither its headers nor CUDA's. */
#pragma once

#include <string>

namespace ps {

/* The dlopen handle of NCCL 2. Throws PS_UNSUPPORTED where there is none. */
void *open_nccl_library();

/* Throws PS_UNSUPPORTED with the reason and the remedy. */
[[noreturn]] void fail_to_load_nccl(const std::string &reason);

}  // namespace ps
