/* NCCL 2, which nccl_library.cpp finds at run time. Names, types and numbers are those of nccl.h. */
#include "nccl.h"

#include <dlfcn.h>

#include <string>

#include "nccl_library.h"

namespace ps {

namespace {

constexpr int32_t kFloat32 = 7, kSum = 0; /* ncclFloat32, ncclSum */
constexpr int32_t kSuccess = 0;

template <typename Function>
void find(void *library, const char *name, Function &out) {
  out = reinterpret_cast<Function>(dlsym(library, name));
  if (!out) fail_to_load_nccl(std::string("it has no ") + name);
}

}  // namespace

Nccl::Nccl(const std::vector<Backend *> &members) : members_(members), communicators_(members.size()) {
  void *library = open_nccl_library();
  find(library, "ncclCommInitAll", init_all_);
  find(library, "ncclCommDestroy", destroy_);
  find(library, "ncclGroupStart", start_);
  find(library, "ncclGroupEnd", end_);
  find(library, "ncclAllReduce", reduce_);
  find(library, "ncclAllGather", gather_);
  find(library, "ncclGetErrorString", error_text_);
  std::vector<int> indices;
  for (const Backend *member : members_) indices.push_back(member->index);
  check(init_all_(communicators_.data(), static_cast<int>(indices.size()), indices.data()), "Could not connect the GPUs");
}

Nccl::~Nccl() {
  start_();
  for (Communicator communicator : communicators_) destroy_(communicator);
  end_();
}

void Nccl::check(Result result, const char *attempted) const {
  if (result != kSuccess)
    throw Error(PS_DEVICE_ERROR, std::string(attempted) + ": NCCL failed (" + error_text_(result) + "); set NCCL_DEBUG=WARN to see why");
}

void Nccl::all_reduce(const std::vector<float *> &data, int64_t count) {
  check(start_(), "Could not sum over the GPUs");
  for (size_t i = 0; i < data.size(); i++) {
    check(reduce_(data[i], data[i], static_cast<size_t>(count), kFloat32, kSum, communicators_[i], members_[i]->stream),
          "Could not sum over the GPUs");
  }
  check(end_(), "Could not sum over the GPUs");
}

void Nccl::all_gather(const std::vector<const float *> &x, const std::vector<float *> &out, int64_t out_stride, int64_t rows, int64_t width) {
  check(start_(), "Could not join the results of the GPUs");
  for (int64_t row = 0; row < rows; row++) {
    for (size_t i = 0; i < x.size(); i++) {
      check(gather_(x[i] + row * width, out[i] + row * out_stride, static_cast<size_t>(width), kFloat32, communicators_[i], members_[i]->stream),
            "Could not join the results of the GPUs");
    }
  }
  check(end_(), "Could not join the results of the GPUs");
}

}  // namespace ps
