/* Main memory: its size, and zeroed blocks of it. */
#pragma once

#include <cstdint>

namespace ps {

struct MainMemory {
  int64_t total_bytes, available_bytes;
};

/* Respects the limit of a Linux control group (container). */
MainMemory measure_memory();

}  // namespace ps
