#include "cublas_library.h"

#include "../backend.h"
#include "open_library.h"

namespace ps {
namespace {

constexpr int kMajorVersion = 13;
constexpr const char *kLibraries[] = {"libcublas.so.13", "libcublas.so"};
constexpr int kMajorProperty = 0; /* libraryPropertyType MAJOR_VERSION */

/* The major version that a library reports, or -1. */
int major_version(void *library) {
  using GetProperty = int32_t (*)(int32_t property, int *value);
  const auto get_property = reinterpret_cast<GetProperty>(dlsym(library, "cublasGetProperty"));
  int value = -1;
  return get_property != nullptr && get_property(kMajorProperty, &value) == 0 ? value : -1;
}

}  // namespace

void fail_to_load_cublas(const std::string &reason) {
  throw Error(PS_UNSUPPORTED, "The CUDA backend needs cuBLAS 13, which could not be loaded (" + reason +
                                  "); install the CUDA 13 libraries, put libcublas.so.13 on LD_LIBRARY_PATH, or use --device cpu");
}

void *open_cublas_library() {
  std::string reason;
  void *library = open_library(kLibraries, kMajorVersion, major_version, reason);
  if (library == nullptr) fail_to_load_cublas(reason);
  return library;
}

}  // namespace ps
