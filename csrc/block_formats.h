/* Weights in blocks: the numbers of a row that share a scale. The structs are GGUF's layout, little-endian; BlockF8 is ours. */
#pragma once

#include <cstdint>

#include "include/pagesift.h"

namespace ps {

/* Scales and minima are the bits of f16. Number i of a block comes from the low half of byte i, and number i + 16 from its high half. */
struct BlockQ8_0 {
  uint16_t scale;
  int8_t q[32];
};
struct BlockQ4_0 {
  uint16_t scale;
  uint8_t q[16];
};
struct BlockQ4_1 {
  uint16_t scale, min;
  uint8_t q[16];
};
struct BlockQ5_0 {
  uint16_t scale;
  uint8_t high[4]; /* bit i is the fifth bit of number i */
  uint8_t q[16];
};
struct BlockQ5_1 {
  uint16_t scale, min;
  uint8_t high[4];
  uint8_t q[16];
};

/* Eight groups of 32 numbers, each with a scale and a minimum of 6 bits. Byte i of q contains numbers i and i + 32 of every 64. */
struct BlockQ4_K {
  uint16_t scale, min;
  uint8_t scales[12];
  uint8_t q[128];
};
struct BlockQ5_K {
  uint16_t scale, min;
  uint8_t scales[12];
  uint8_t high[32]; /* bit g of byte i is the fifth bit of number i of group g */
  uint8_t q[128];
};

/* Sixteen groups of 16 numbers, each with a signed scale. Low 4 bits and high 2 bits of numbers from -32 to 31, in halves of 128. */
struct BlockQ6_K {
  uint8_t q[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t scale;
};

/* e4m3 numbers: no infinities, NaN is 0x7f and 0xff. */
struct BlockF8 {
  uint8_t q[128];
  float scale;
};

constexpr int64_t kBlockAlignment = 16; /* where a weight in blocks may begin: the GPU copies 16 bytes at a time */

struct BlockFormat {
  const char *name;
  int64_t numbers, bytes, alignment; /* numbers 1 for dtypes without blocks */
};

constexpr BlockFormat kBlockFormats[] = {
    {"f32", 1, 4, 4},
    {"f16", 1, 2, 2},
    {"bf16", 1, 2, 2},
    {"i32", 1, 4, 4},
    {"q8_0", 32, sizeof(BlockQ8_0), kBlockAlignment},
    {"q4_0", 32, sizeof(BlockQ4_0), kBlockAlignment},
    {"q4_1", 32, sizeof(BlockQ4_1), kBlockAlignment},
    {"q5_0", 32, sizeof(BlockQ5_0), kBlockAlignment},
    {"q5_1", 32, sizeof(BlockQ5_1), kBlockAlignment},
    {"q4_k", 256, sizeof(BlockQ4_K), kBlockAlignment},
    {"q5_k", 256, sizeof(BlockQ5_K), kBlockAlignment},
    {"q6_k", 256, sizeof(BlockQ6_K), kBlockAlignment},
    {"f8", 128, sizeof(BlockF8), kBlockAlignment},
};
constexpr int32_t kDtypes = sizeof kBlockFormats / sizeof *kBlockFormats;
static_assert(kDtypes == PS_F8 + 1 && sizeof(BlockQ8_0) == 34 && sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22 &&
                  sizeof(BlockQ5_1) == 24 && sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210 &&
                  sizeof(BlockF8) == 132,
              "Blocks have the sizes of GGUF");

constexpr bool is_block_format(int32_t dtype) { return dtype >= PS_Q8_0 && dtype <= PS_F8; }

/* Bytes of consecutive numbers of a row, a multiple of the block. */
constexpr int64_t bytes_of_numbers(int32_t dtype, int64_t numbers) { return numbers / kBlockFormats[dtype].numbers * kBlockFormats[dtype].bytes; }

}  // namespace ps
