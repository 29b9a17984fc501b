/* Groups of GPUs that NCCL 2 connects, also where they do not reach each other's memory. */
#pragma once

#include <vector>

#include "backend.h"

namespace ps {

class Nccl {
 public:
  explicit Nccl(const std::vector<Backend *> &members);
  ~Nccl();

  /* As in ../group.h. */
  void all_reduce(const std::vector<float *> &data, int64_t count);
  void all_gather(const std::vector<const float *> &x, const std::vector<float *> &out, int64_t out_stride, int64_t rows, int64_t width);

 private:
  using Communicator = void *; /* ncclComm_t */
  using Result = int32_t;      /* ncclResult_t */

  void check(Result result, const char *attempted) const;

  std::vector<Backend *> members_;
  std::vector<Communicator> communicators_;
  Result (*init_all_)(Communicator *, int, const int *) = nullptr;
  Result (*destroy_)(Communicator) = nullptr;
  Result (*start_)() = nullptr;
  Result (*end_)() = nullptr;
  Result (*reduce_)(const void *, void *, size_t, int32_t type, int32_t operation, Communicator, cudaStream_t) = nullptr;
  Result (*gather_)(const void *, void *, size_t, int32_t type, Communicator, cudaStream_t) = nullptr;
  const char *(*error_text_)(Result) = nullptr;
};

}  // namespace ps
