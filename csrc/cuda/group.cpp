/* Groups of GPUs: kernels of this library in memory that they reach directly, or NCCL where the user asks for it. */
#include "../group.h"

#include <cstdlib>
#include <cstring>
#include <memory>

#include "nccl.h"
#include "peers.h"

namespace ps {

struct Group {
  std::vector<Backend *> members;
  /* One of both. */
  std::unique_ptr<Peers> peers;
  std::unique_ptr<Nccl> nccl;
};

namespace {

/* What is exchanged may be what a member has rounded. */
void forget_rounded(const Group &group) {
  for (Backend *member : group.members) forget_rows(*member);
}

bool wants_nccl() {
  const char *asked = std::getenv("PAGESIFT_NCCL");
  return asked != nullptr && std::strcmp(asked, "1") == 0;
}

}  // namespace

Group *group_open(const std::vector<Backend *> &members) {
  auto group = std::make_unique<Group>();
  group->members = members;
  if (wants_nccl()) {
    group->nccl = std::make_unique<Nccl>(members);
  } else {
    group->peers = std::make_unique<Peers>(members);
    group->peers->connect();
  }
  return group.release();
}

void group_close(Group *group) {
  for (const Backend *member : group->members) {
    cudaSetDevice(member->index);
    cudaStreamSynchronize(member->stream);
  }
  delete group;
}

void backend_enter(Backend &backend) { check_cuda(cudaSetDevice(backend.index), "Could not use the GPU"); }

void all_reduce(Group &group, const std::vector<float *> &data, int64_t count) {
  forget_rounded(group);
  if (group.peers) group.peers->all_reduce(data, count);
  else group.nccl->all_reduce(data, count);
}

void all_reduce_start(Group &group, const std::vector<float *> &data, int64_t count) {
  forget_rounded(group);
  if (!group.peers || !group.peers->start(data, count)) all_reduce(group, data, count);
}

void all_reduce_finish(Group &group, const std::vector<float *> &data, int64_t count) {
  if (group.peers) group.peers->finish(data, count);
}

void all_gather(Group &group, const std::vector<const float *> &x, const std::vector<float *> &out, int64_t out_stride, int64_t rows, int64_t width) {
  forget_rounded(group);
  if (group.peers) group.peers->all_gather(x, out, out_stride, rows, width);
  else group.nccl->all_gather(x, out, out_stride, rows, width);
}

}  // namespace ps
