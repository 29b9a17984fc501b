/* The number of processors that the process may use, and which optional instructions they have. */
#pragma once

#include <string>

namespace ps {

/* Processors in the affinity mask, limited by the CPU quota of the process's control groups (container); at least 1. */
int usable_processors();

/* The CPU quota in processors, rounded up: the smallest of all control groups of this process, nested ones included, in versions 1 and 2;
 * 0 without a quota. `root` comes before every path that is read: "" for the system's own files. */
int quota_processors(const std::string &root);

/* Whether the processor multiplies tiles of bf16 (AMX, with AVX512-BF16) and the system lets this process use them. The system grants that
 * for all threads at once, or refuses, for example in a sandbox or if a thread's signal stack is too small for the registers. */
bool request_amx();

/* What an arm64 processor has beyond NEON; nothing on other processors and systems. */
struct ArmFeatures {
  bool dot;  /* products of bytes (FEAT_DotProd) */
  bool bf16; /* products of bf16 (FEAT_BF16) */
};
ArmFeatures arm_features();

}  // namespace ps
