#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "../backend.h"

namespace ps {
namespace {

/* The first number after `key` in a file of the Linux kernel, or -1. */
int64_t read_number(const char *path, const char *key) {
  FILE *file = std::fopen(path, "r");
  if (file == nullptr) return -1;
  char line[256];
  long long value = -1;
  const std::string pattern = std::string(key) + "%lld";
  while (value < 0 && std::fgets(line, sizeof line, file) != nullptr) {
    if (std::sscanf(line, pattern.c_str(), &value) != 1) value = -1;
  }
  std::fclose(file);
  return value;
}

}  // namespace

MainMemory measure_memory() {
  const int64_t total = int64_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  const int64_t available_kib = read_number("/proc/meminfo", "MemAvailable: ");
  MainMemory memory{total, available_kib >= 0 ? available_kib * 1024 : total};
  const int64_t limit = read_number("/sys/fs/cgroup/memory.max", ""), used = read_number("/sys/fs/cgroup/memory.current", "");
  if (limit >= 0 && used >= 0 && limit < memory.total_bytes) {
    const int64_t left = limit > used ? limit - used : 0;
    memory.total_bytes = limit;
    memory.available_bytes = left < memory.available_bytes ? left : memory.available_bytes;
  }
  return memory;
}

void *memory_allocate(Backend &, int64_t bytes) {
  const int64_t available = measure_memory().available_bytes;
  if (bytes > available) {
    throw Error(PS_OUT_OF_MEMORY, "Out of main memory: " + std::to_string(bytes) + " bytes needed, " + std::to_string(available) + " available");
  }
  void *memory = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw Error(PS_OUT_OF_MEMORY, "Out of main memory: the system refused " + std::to_string(bytes) + " bytes");
#if defined(MADV_HUGEPAGE)
  if (bytes >= int64_t(8) << 20) madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE); /* fewer TLB misses */
#endif
  return memory;
}

void memory_free(Backend &, void *memory, int64_t bytes) { munmap(memory, static_cast<size_t>(bytes)); }

}  // namespace ps
