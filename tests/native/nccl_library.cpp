/* Prints "opened" and the value of NCCL_NVLS_ENABLE, or why no NCCL that is supported is found. */
#include "../../csrc/cuda/nccl_library.h"

#include <cstdio>
#include <cstdlib>

#include "../../csrc/backend.h"

int main() {
  try {
    ps::open_nccl_library();
    std::printf("opened %s", std::getenv("NCCL_NVLS_ENABLE"));
  } catch (const ps::Error &error) {
    std::printf("%d %s", error.status, error.what());
  }
  return 0;
}
