/* Large sums that travel while other work goes on. */
#include <algorithm>

#include "../group.h"
#include "peers.h"

namespace ps {
namespace {

constexpr int64_t kLeastNumbers = 1 << 19; /* below, the copy is shorter than what starts it */
constexpr const char *kFailed = "Could not exchange results between the GPUs";

bool is_recording(const Backend &backend) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(backend.stream, &status), kFailed);
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace

void Peers::reserve(Exchange &exchange, int64_t count) {
  exchange.arrived.resize(members_.size());
  exchange.ready.resize(members_.size());
  exchange.sent.resize(members_.size());
  for (size_t i = 0; i < members_.size(); i++) {
    Backend &member = *members_[i];
    backend_enter(member);
    for (cudaEvent_t *event : {&exchange.ready[i], &exchange.sent[i]}) {
      if (*event == nullptr) check_cuda(cudaEventCreateWithFlags(event, cudaEventDisableTiming), kFailed);
    }
    if (count <= exchange.capacity) continue;
    if (exchange.arrived[i] != nullptr) memory_free(member, exchange.arrived[i], 0);
    exchange.arrived[i] = nullptr;
    exchange.arrived[i] = static_cast<float *>(memory_allocate(member, count * static_cast<int64_t>(sizeof(float))));
  }
  exchange.capacity = std::max(count, exchange.capacity);
}

bool Peers::start(const std::vector<float *> &data, int64_t count) {
  for (Exchange &exchange : exchanges_) {
    if (exchange.data == data[0]) exchange.data = nullptr; /* its caller gave up */
  }
  const auto is_free = [](const Exchange &exchange) { return exchange.data == nullptr; };
  const auto exchange = std::find_if(exchanges_.begin(), exchanges_.end(), is_free);
  if (members_.size() != 2 || count < kLeastNumbers || exchange == exchanges_.end() || is_recording(*members_[0])) return false;
  reserve(*exchange, count);
  for (size_t i = 0; i < 2; i++) {
    backend_enter(*members_[i]);
    check_cuda(cudaEventRecord(exchange->ready[i], members_[i]->stream), kFailed);
  }
  for (size_t i = 0; i < 2; i++) {
    const size_t other = 1 - i;
    backend_enter(*members_[i]);
    /* Once both are ready, this member's numbers are complete, and the other one has added what arrived before. */
    for (cudaEvent_t ready : exchange->ready) check_cuda(cudaStreamWaitEvent(copies_[i], ready, 0), kFailed);
    check_cuda(cudaMemcpyAsync(exchange->arrived[other], data[i], static_cast<size_t>(count) * sizeof(float), cudaMemcpyDefault, copies_[i]),
               kFailed);
    check_cuda(cudaEventRecord(exchange->sent[i], copies_[i]), kFailed);
  }
  exchange->data = data[0];
  exchange->count = count;
  return true;
}

void Peers::finish(const std::vector<float *> &data, int64_t count) {
  const auto is_this = [&](const Exchange &exchange) { return exchange.data == data[0] && exchange.count == count; };
  const auto exchange = std::find_if(exchanges_.begin(), exchanges_.end(), is_this);
  if (exchange == exchanges_.end()) return;
  exchange->data = nullptr;
  for (size_t i = 0; i < 2; i++) {
    Backend &member = *members_[i];
    backend_enter(member);
    for (cudaEvent_t sent : exchange->sent) check_cuda(cudaStreamWaitEvent(member.stream, sent, 0), kFailed);
    /* a + b = b + a, so both members hold the same bits. */
    add(member, {{data[i], count}, {exchange->arrived[i], count}, 1, count});
  }
}

}  // namespace ps
