#include "nccl_library.h"

#include <cstdlib>

#include "../backend.h"
#include "open_library.h"

namespace ps {
namespace {

constexpr int kMajorVersion = 2;
constexpr const char *kLibraries[] = {"libnccl.so.2", "libnccl.so"};

/* The major version that a library reports, or -1. Versions before 2.9 have three digits behind it, later ones four. */
int major_version(void *library) {
  using GetVersion = int32_t (*)(int *version);
  const auto get_version = reinterpret_cast<GetVersion>(dlsym(library, "ncclGetVersion"));
  int version = -1;
  if (get_version == nullptr || get_version(&version) != 0) return -1;
  return version / (version < 10000 ? 1000 : 10000);
}

}  // namespace

void fail_to_load_nccl(const std::string &reason) {
  throw Error(PS_UNSUPPORTED, "PAGESIFT_NCCL=1 requires NCCL 2, which could not be loaded (" + reason +
                                  "); install libnccl2, put libnccl.so.2 on LD_LIBRARY_PATH, or unset PAGESIFT_NCCL");
}

void *open_nccl_library() {
  /* Multicast through NVLink switches fails on some machines; a user who sets the variable decides. */
  setenv("NCCL_NVLS_ENABLE", "0", 0);
  std::string reason;
  void *library = open_library(kLibraries, kMajorVersion, major_version, reason);
  if (library == nullptr) fail_to_load_nccl(reason);
  return library;
}

}  // namespace ps
