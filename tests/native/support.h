/* What the programs of this folder share. */
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "../../csrc/include/pagesift.h"

/* Ends the process with a line where something does not hold; the sanitizers add where. */
#define MUST(condition) \
  do { \
    if (!(condition)) fail(#condition, __FILE__, __LINE__); \
  } while (0)

[[noreturn]] inline void fail(const char *condition, const char *file, int line) {
  std::fprintf(stderr, "FAILED: %s at %s:%d\n", condition, file, line);
  std::abort();
}

/* A small cache: two layers of two heads of 16 numbers, 16 pages of 8 tokens, one sequence. */
inline ps_cache_desc small_cache() {
  ps_cache_desc desc{};
  desc.num_pages = desc.max_pages_per_sequence = 16;
  desc.num_layers = desc.num_query_heads = desc.num_kv_heads = 2;
  desc.head_dim = 16;
  desc.page_size = 8;
  desc.max_sequences = 1;
  return desc;
}
