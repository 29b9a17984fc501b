/* Prints "opened", or why no cuBLAS that is supported is found. */
#include "../../csrc/cuda/cublas_library.h"

#include <cstdio>

#include "../../csrc/backend.h"

int main() {
  try {
    ps::open_cublas_library();
    std::printf("opened");
  } catch (const ps::Error &error) {
    std::printf("%d %s", error.status, error.what());
  }
  return 0;
}
