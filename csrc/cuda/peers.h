/* GPUs that read and write each other's memory directly, through NVLink or PCIe: sums and joins without a library. */
#pragma once

#include <array>
#include <vector>

#include "backend.h"

namespace ps {

constexpr int kMostPeers = 8;
constexpr int kPeerBlocks = 256;     /* of a kernel at most */
constexpr int kSmallLines = 1 << 16; /* of a sum that goes through the inboxes */

/* Numbers on their way to another GPU, and the round that they belong to. Halves of 8 bytes arrive whole, so each has a mark. */
struct alignas(16) Line {
  float first;
  uint32_t first_round;
  float second;
  uint32_t second_round;
};

/* What each member has for the others to write to. Blocks with the same number work together on all members, and count their rounds. */
struct Inbox {
  uint32_t rounds[kPeerBlocks];              /* done; only the owner writes them */
  uint32_t reached[kPeerBlocks][kMostPeers]; /* the round that each member has reached */
  uint32_t broken;                           /* 1 once a member waited in vain: then nobody waits again */
  Line lines[2][kMostPeers][kSmallLines];    /* from each member, for even and odd rounds */
};

/* What a kernel of one member is given. */
struct PeerParams {
  int32_t self, members;
  Inbox *inboxes[kMostPeers];
  BadIndex *notes[kMostPeers]; /* where hosts look for failures, of all members */
  int32_t indices[kMostPeers]; /* numbers of the GPUs */
};

/* A sum that is under way: each member copies its numbers to the other, without using a multiprocessor. */
struct Exchange {
  float *data = nullptr; /* of the first member; null if nothing is under way */
  int64_t count = 0;
  std::vector<float *> arrived; /* [capacity] on each member, from the other one */
  int64_t capacity = 0;
  std::vector<cudaEvent_t> ready, sent; /* of each member */
};

class Peers {
 public:
  explicit Peers(const std::vector<Backend *> &members) : members_(members) {}
  Peers(const Peers &) = delete;
  ~Peers();
  /* Throws PS_UNSUPPORTED unless all members reach each other's memory. */
  void connect();

  /* As in ../group.h. All members add in the same order, so their results have the same bits. */
  void all_reduce(const std::vector<float *> &data, int64_t count);
  void all_gather(const std::vector<const float *> &x, const std::vector<float *> &out, int64_t out_stride, int64_t rows, int64_t width);

  /* Lets a large sum of two members travel while their streams go on with other work. `finish` adds what arrived; it has no effect on
   * data of which no sum is under way. */
  bool start(const std::vector<float *> &data, int64_t count);
  void finish(const std::vector<float *> &data, int64_t count);

 private:
  void require_reach() const;
  PeerParams params(size_t self) const;
  void launch_sum(size_t self, const std::vector<float *> &data, int64_t count);
  void reserve(Exchange &exchange, int64_t count);

  std::vector<Backend *> members_;
  std::vector<Inbox *> inboxes_;
  std::vector<cudaStream_t> copies_; /* of each member */
  std::array<Exchange, 2> exchanges_;
};

}  // namespace ps
