/* Groups of GPUs through NCCL 2, which nccl_library.cpp finds at run time. Names, types and numbers are those of nccl.h. */
#include "../group.h"

#include <dlfcn.h>

#include <memory>
#include <string>

#include "backend.h"
#include "nccl_library.h"

namespace ps {

namespace {

using Communicator = void *; /* ncclComm_t */
using Result = int32_t;      /* ncclResult_t */

constexpr int32_t kFloat32 = 7, kSum = 0; /* ncclFloat32, ncclSum */
constexpr Result kSuccess = 0;
template <typename Function>
void find(void *library, const char *name, Function &out) {
  out = reinterpret_cast<Function>(dlsym(library, name));
  if (!out) fail_to_load_nccl(std::string("it has no ") + name);
}

}  // namespace

struct Group {
  std::vector<Backend *> members;
  std::vector<Communicator> communicators;
  Result (*init_all)(Communicator *, int, const int *) = nullptr;
  Result (*destroy)(Communicator) = nullptr;
  Result (*start)() = nullptr;
  Result (*end)() = nullptr;
  Result (*reduce)(const void *, void *, size_t, int32_t type, int32_t operation, Communicator, cudaStream_t) = nullptr;
  Result (*gather)(const void *, void *, size_t, int32_t type, Communicator, cudaStream_t) = nullptr;
  const char *(*error_text)(Result) = nullptr;

  void check(Result result, const char *attempted) const {
    if (result != kSuccess)
      throw Error(PS_DEVICE_ERROR, std::string(attempted) + ": NCCL failed (" + error_text(result) + "); set NCCL_DEBUG=WARN to see why");
  }
};

namespace {

void load(Group &group) {
  void *library = open_nccl_library();
  find(library, "ncclCommInitAll", group.init_all);
  find(library, "ncclCommDestroy", group.destroy);
  find(library, "ncclGroupStart", group.start);
  find(library, "ncclGroupEnd", group.end);
  find(library, "ncclAllReduce", group.reduce);
  find(library, "ncclAllGather", group.gather);
  find(library, "ncclGetErrorString", group.error_text);
}

/* Without it, NCCL would go through main memory, slower than one GPU. */
void require_peers(const std::vector<Backend *> &members) {
  for (const Backend *one : members) {
    for (const Backend *other : members) {
      int reaches = 0;
      if (one == other) continue;
      check_cuda(cudaDeviceCanAccessPeer(&reaches, one->index, other->index), "Could not ask which GPUs reach each other");
      if (reaches) continue;
      throw Error(PS_UNSUPPORTED, "GPU " + std::to_string(one->index) + " cannot reach the memory of GPU " + std::to_string(other->index) +
                                      " directly; choose GPUs that NVLink or one PCIe switch connects (nvidia-smi topo -m), or use one device");
    }
  }
}

}  // namespace

Group *group_open(const std::vector<Backend *> &members) {
  require_peers(members);
  auto group = std::make_unique<Group>();
  load(*group);
  group->members = members;
  group->communicators.resize(members.size());
  std::vector<int> indices;
  for (const Backend *member : members) indices.push_back(member->index);
  group->check(group->init_all(group->communicators.data(), static_cast<int>(indices.size()), indices.data()), "Could not connect the GPUs");
  return group.release();
}

void group_close(Group *group) {
  for (size_t i = 0; i < group->members.size(); i++) {
    cudaSetDevice(group->members[i]->index);
    cudaStreamSynchronize(group->members[i]->stream);
  }
  group->start();
  for (Communicator communicator : group->communicators) group->destroy(communicator);
  group->end();
  delete group;
}

void backend_enter(Backend &backend) { check_cuda(cudaSetDevice(backend.index), "Could not use the GPU"); }

void all_reduce(Group &group, const std::vector<float *> &data, int64_t count) {
  group.check(group.start(), "Could not sum over the GPUs");
  for (size_t i = 0; i < data.size(); i++) {
    group.check(group.reduce(data[i], data[i], static_cast<size_t>(count), kFloat32, kSum, group.communicators[i], group.members[i]->stream),
                "Could not sum over the GPUs");
  }
  group.check(group.end(), "Could not sum over the GPUs");
}

void all_gather(Group &group, const std::vector<const float *> &x, const std::vector<float *> &out, int64_t out_stride, int64_t rows, int64_t width) {
  group.check(group.start(), "Could not join the results of the GPUs");
  for (int64_t row = 0; row < rows; row++) {
    for (size_t i = 0; i < x.size(); i++) {
      group.check(group.gather(x[i] + row * width, out[i] + row * out_stride, static_cast<size_t>(width), kFloat32, group.communicators[i],
                               group.members[i]->stream),
                  "Could not join the results of the GPUs");
    }
  }
  group.check(group.end(), "Could not join the results of the GPUs");
}

}  // namespace ps
