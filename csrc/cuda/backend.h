/* What the CUDA build keeps for a device, and how kernels are launched on it. Host code only; kernels include common.cuh. */
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "../backend.h"

namespace ps {

/* The arrays of numbers that kernels check because the host cannot see them. Order of kIndexNames in backend.cu. kBeingNoted: a kernel is writing
 * the rest. kLatePeer is no array: GPU `place` waited for GPU `value` in vain. */
enum IndexArray : int32_t { kBeingNoted = -1, kNoArray = 0, kIds, kRows, kSlots, kPageTable, kLengths, kSelected, kCounts, kLatePeer };

/* The first number that a kernel refused. It then used none of it; the next call that waits for the device reports it. */
struct BadIndex {
  int32_t array; /* IndexArray */
  int32_t place, value;
  int32_t limit; /* allowed: 0 to limit - 1, for lengths and counts 1 to limit */
};

struct Cublas; /* matmul_cublas.cpp: its handle is made when a product first needs it */

/* Pages of a layer that a kernel writes. */
struct WrittenLayer {
  const void *keys; /* of the cache */
  int32_t layer;    /* or kAllLayers */
};
constexpr int32_t kAllLayers = -1;

/* Rows that the last launch left in scratch memory as 16-bit numbers, beside the f32 that it wrote: rounded_rows.cuh. */
struct RoundedRows {
  const float *source; /* nullptr: none */
  int64_t stride, tokens, width; /* of the source */
  void *place;
};

/* Rows of which the last launch knows the norm, for the product that takes it: fused_matmul.cu. */
struct NormedRows {
  const float *source; /* nullptr: none */
  int64_t stride, tokens, width; /* of the source */
  const void *norm;
  float eps;
  Rows<float> rows;     /* normed; nullptr where a product takes: */
  void *weighted;       /* source * norm as bf16, rows as RoundedRows has them, */
  const float *squares; /* and [parts, tokens], whose sums over parts are those of the squares of a token */
  int32_t parts;
};

struct Backend {
  int index = 0;
  cudaStream_t stream = nullptr;
  int multiprocessors = 0;
  int capability = 0;          /* 90 for 9.0 */
  int shared_bytes = 0;        /* largest dynamic shared memory of a block */
  char name[64] = {};
  BadIndex *bad_index = nullptr; /* page-locked main memory, which kernels write */
  void *staging = nullptr;       /* page-locked main memory for small copies from the GPU, kStagingBytes */
  char *outbox = nullptr;        /* the same for small copies to the GPU */
  int64_t outbox_bytes = 0;      /* of it that copies may still read */
  char *letters = nullptr;       /* page-locked main memory for reads that are finished later, kMostLetters of kLetterBytes */
  cudaEvent_t arrived[kMostLetters] = {}; /* when each is there */
  unsigned started_letters = 0, finished_letters = 0;
  void *transfer[2] = {};        /* page-locked main memory for large copies, kTransferBytes each, allocated by the first of them */
  cudaEvent_t transferred[2] = {}; /* when the GPU is done with each */
  Cublas *cublas = nullptr;
  std::vector<void *> scratch_blocks; /* the last one is in use; recorded graphs may still refer to earlier ones */
  int64_t scratch_bytes = 0;
  std::vector<WrittenLayer> written; /* by kernels that may still be under way when the next one starts early */
  RoundedRows rounded{};
  NormedRows normed{};
  bool rounds_rows = false; /* whether the last product of many tokens rounded its x to bf16, and no more */
};

constexpr int64_t kStagingBytes = 1 << 16;
constexpr int64_t kTransferBytes = 1 << 23;

/* Forgets what the last launch left: what follows may write it, or what it was made of. */
inline void forget_rows(Backend &backend) { backend.rounded = {}, backend.normed = {}; }

/* Throws what a CUDA call returned, unless it is cudaSuccess. `what` says what was attempted: "Could not launch page_score". */
void check_cuda(cudaError_t status, const char *what);

/* Device memory of at least `bytes` that one operation uses until its kernels are done; the next operation reuses it. */
void *scratch(Backend &backend, int64_t bytes);

/* Notes that a kernel which is about to be launched writes pages of a layer. Returns whether they are at rest until then: all kernels that
 * wrote some are done before any kernel that is launched from now on begins, because a copy or the launch of a graph lies between. */
bool note_written(Backend &backend, const CacheView &cache, int32_t layer);

/* Throws where cuBLAS cannot be loaded, so that a device that lacks it is refused when it is opened and not in the middle of a prompt. */
void require_cublas();
/* Gives back what a device took from cuBLAS. */
void close_cublas(Cublas *cublas);

/* Whether a kernel may be set up while the one before it still runs. */
enum class Start { kEarly, kAfterPrevious };

/* Lets a kernel take so much shared memory. How a multiprocessor is divided between shared memory and cache stays the driver's choice:
 * with the most shared memory for all kernels, those that load to registers had too little cache for what is under way. */
template <typename... Params>
void allow_shared(const char *what, void (*kernel)(Params...), int64_t shared_bytes) {
  if (shared_bytes <= 48 * 1024) return;
  check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared_bytes)),
             what);
}

/* All shared memory for a kernel whose blocks share multiprocessors with those of another. */
template <typename... Params>
void leave_no_cache(const char *what, void (*kernel)(Params...)) {
  check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), cudaFuncAttributePreferredSharedMemoryCarveout,
                                  cudaSharedmemCarveoutMaxShared),
             what);
}

/* Launches a kernel on the device's stream. An early one, from compute capability 9.0 on, may start while the kernel before it still
 * runs: every kernel calls wait_for_previous() (common.cuh) before it touches memory that another kernel wrote or reads. */
template <typename... Params, typename... Args>
void launch(Backend &backend, Start start, const char *what, void (*kernel)(Params...), dim3 grid, dim3 block, int64_t shared_bytes, Args... args) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = backend.stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = start == Start::kEarly && backend.capability >= 90 ? 1 : 0;
  allow_shared(what, kernel, shared_bytes);
  forget_rows(backend);
  check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), what);
}

template <typename... Params, typename... Args>
void launch(Backend &backend, const char *what, void (*kernel)(Params...), dim3 grid, dim3 block, int64_t shared_bytes, Args... args) {
  launch(backend, Start::kEarly, what, kernel, grid, block, shared_bytes, args...);
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace ps
