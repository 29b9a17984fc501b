#include "cublas_library.h"

#include <dlfcn.h>

#include "../backend.h"

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
  for (const char *name : kLibraries) {
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      const char *error = dlerror();
      if (reason.empty() && error != nullptr) reason = error; /* of the name to install */
      continue;
    }
    const int version = major_version(library);
    if (version == kMajorVersion) return library;
    dlclose(library);
    reason = std::string(name) + " has " + (version < 0 ? "an unknown version" : "version " + std::to_string(version));
  }
  fail_to_load_cublas(reason);
}

}  // namespace ps
