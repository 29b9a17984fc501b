/* Opens a library of which one major version is required, under several names. */
#pragma once

#include <dlfcn.h>

#include <string>

namespace ps {

/* The dlopen handle of the first library with the version, or nullptr with the reason. version_of(library): its major version, or -1. */
template <int N>
void *open_library(const char *const (&names)[N], int major_version, int (*version_of)(void *library), std::string &reason) {
  for (const char *name : names) {
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      const char *error = dlerror();
      if (reason.empty() && error != nullptr) reason = error; /* of the name to install */
      continue;
    }
    const int version = version_of(library);
    if (version == major_version) return library;
    dlclose(library);
    reason = std::string(name) + " has " + (version < 0 ? "an unknown version" : "version " + std::to_string(version));
  }
  return nullptr;
}

}  // namespace ps
