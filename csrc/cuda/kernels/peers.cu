/* Sums and joins over GPUs that reach each other's memory. A small sum is bound by the way through the link (one way and back is about
 * 2 us): every member sends its numbers to all others together with the number of the round, so nothing but their arrival is waited for.
 * A large one is bound by the link's bandwidth: each member adds a share of the numbers and writes the result to all. */
#include "../peers.h"

#include <algorithm>
#include <string>

#include "../../group.h"
#include "pack.cuh"

namespace ps {
namespace {

constexpr int kSmallThreads = 256, kLargeThreads = 512, kLargeBlocks = 64;
constexpr int kUnroll = 4; /* packs that a thread has under way, to cover the latency of the link */
constexpr int kLooks = 1024; /* between two looks at the clock */
constexpr uint64_t kPatience = 10'000'000'000; /* nanoseconds to wait for another member */

__device__ __forceinline__ uint64_t nanoseconds() {
  uint64_t now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
}

/* Counts how long a thread waits for a member. */
struct Patience {
  uint64_t end = 0;
  int looks = 0;

  /* True once the wait is over without success. The first to notice tells the hosts of all members. */
  __device__ __forceinline__ bool is_over(const PeerParams &p, int32_t member) {
    if (++looks % kLooks != 0) return false;
    Inbox &own = *p.inboxes[p.self];
    if (*reinterpret_cast<volatile uint32_t *>(&own.broken)) return true;
    const uint64_t now = nanoseconds();
    if (end == 0) end = now + kPatience;
    if (now < end) return false;
    own.broken = 1;
    for (int32_t i = 0; i < p.members; i++) note_bad_index(p.notes[i], kLatePeer, p.indices[p.self], p.indices[member], 0);
    __threadfence_system();
    return true;
  }
};

__device__ __forceinline__ void send(Line *to, float first, float second, uint32_t round) {
  asm volatile("st.volatile.global.v4.u32 [%0], {%1, %2, %3, %2};" ::"l"(to), "r"(__float_as_uint(first)), "r"(round), "r"(__float_as_uint(second))
               : "memory");
}

__device__ __forceinline__ Line look(const Line *from) {
  uint32_t first, first_round, second, second_round;
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(first), "=r"(first_round), "=r"(second), "=r"(second_round)
               : "l"(from)
               : "memory");
  return {__uint_as_float(first), first_round, __uint_as_float(second), second_round};
}

/* A line of N numbers per thread. Lines of two rounds before may be overwritten: their sender has since received what this member sent after
 * it had read them. */
template <int N>
__global__ void __launch_bounds__(kSmallThreads) sum_small_kernel(const __grid_constant__ PeerParams p, float *data, int64_t count) {
  wait_for_previous();
  let_next_start();
  Inbox &own = *p.inboxes[p.self];
  const uint32_t round = own.rounds[blockIdx.x] + 1;
  const int64_t line = int64_t(blockIdx.x) * kSmallThreads + threadIdx.x;
  if (line * N < count) {
    const Pack<float, N> numbers = load_pack<N>(data + line * N);
    for (int32_t i = 1; i < p.members; i++) {
      const int32_t other = (p.self + i) % p.members;
      send(&p.inboxes[other]->lines[round % 2][p.self][line], numbers.value[0], numbers.value[N - 1], round);
    }
    Pack<float, N> sum{};
    for (int32_t member = 0; member < p.members; member++) {
      Pack<float, N> part = numbers;
      if (member != p.self) {
        const Line *from = &own.lines[round % 2][member][line];
        Patience patience;
        Line got = look(from);
        while ((got.first_round != round || got.second_round != round) && !patience.is_over(p, member)) got = look(from);
        part.value[0] = got.first;
        part.value[N - 1] = got.second;
      }
#pragma unroll
      for (int j = 0; j < N; j++) sum.value[j] = member == 0 ? part.value[j] : sum.value[j] + part.value[j];
    }
    store_pack<N>(data + line * N, sum);
  }
  __syncthreads();
  if (threadIdx.x == 0) own.rounds[blockIdx.x] = round;
}

/* Waits until the blocks with this number have reached the round on all members: what they wrote and read before is done. */
__device__ __forceinline__ void meet(const PeerParams &p, uint32_t round) {
  __syncthreads();
  const int32_t other = static_cast<int32_t>(threadIdx.x);
  if (other < p.members && other != p.self) {
    __threadfence_system();
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(&p.inboxes[other]->reached[blockIdx.x][p.self]), "r"(round) : "memory");
    Patience patience;
    uint32_t reached;
    do {
      asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(reached) : "l"(&p.inboxes[p.self]->reached[blockIdx.x][other]) : "memory");
    } while (static_cast<int32_t>(reached - round) < 0 && !patience.is_over(p, other));
  }
  __syncthreads();
}

struct PeerRows {
  float *data[kMostPeers];
};

/* Each member adds its share of the packs, and writes the sums to all. */
template <int N>
__global__ void __launch_bounds__(kLargeThreads)
    sum_large_kernel(const __grid_constant__ PeerParams p, const __grid_constant__ PeerRows rows, int64_t count) {
  wait_for_previous();
  Inbox &own = *p.inboxes[p.self];
  const uint32_t round = own.rounds[blockIdx.x] + 1;
  meet(p, round);
  const int64_t packs = count / N, end = packs * (p.self + 1) / p.members, step = int64_t(gridDim.x) * kLargeThreads;
  for (int64_t first = packs * p.self / p.members + int64_t(blockIdx.x) * kLargeThreads + threadIdx.x; first < end; first += step * kUnroll) {
    Pack<float, N> sums[kUnroll];
    for (int32_t member = 0; member < p.members; member++) {
      Pack<float, N> parts[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; u++) {
        if (first + u * step < end) parts[u] = load_pack<N>(rows.data[member] + (first + u * step) * N);
      }
#pragma unroll
      for (int u = 0; u < kUnroll; u++) {
#pragma unroll
        for (int j = 0; j < N; j++) sums[u].value[j] = member == 0 ? parts[u].value[j] : sums[u].value[j] + parts[u].value[j];
      }
    }
    for (int32_t member = 0; member < p.members; member++) {
#pragma unroll
      for (int u = 0; u < kUnroll; u++) {
        if (first + u * step < end) store_pack<N>(rows.data[member] + (first + u * step) * N, sums[u]);
      }
    }
  }
  meet(p, round + 1);
  if (threadIdx.x == 0) own.rounds[blockIdx.x] = round + 1;
}

/* Each member writes its columns to all. */
template <int N>
__global__ void __launch_bounds__(kLargeThreads)
    gather_kernel(const __grid_constant__ PeerParams p, const float *x, const __grid_constant__ PeerRows out, int64_t out_stride, int64_t packs,
                  int64_t rows) {
  wait_for_previous();
  Inbox &own = *p.inboxes[p.self];
  const uint32_t round = own.rounds[blockIdx.x] + 1;
  meet(p, round);
  for (int64_t i = int64_t(blockIdx.x) * kLargeThreads + threadIdx.x; i < rows * packs; i += int64_t(gridDim.x) * kLargeThreads) {
    const int64_t row = i / packs, column = (packs * p.self + i % packs) * N;
    const Pack<float, N> numbers = load_pack<N>(x + i * N);
    for (int32_t member = 0; member < p.members; member++) store_pack<N>(out.data[member] + row * out_stride + column, numbers);
  }
  meet(p, round + 1);
  if (threadIdx.x == 0) own.rounds[blockIdx.x] = round + 1;
}

/* A kernel that is loaded at its first launch would make other GPUs wait meanwhile, and one that waits for them would never end. */
void load_kernels() {
  cudaFuncAttributes attributes{};
  for (const void *kernel : {reinterpret_cast<const void *>(sum_small_kernel<1>), reinterpret_cast<const void *>(sum_small_kernel<2>),
                             reinterpret_cast<const void *>(sum_large_kernel<1>), reinterpret_cast<const void *>(sum_large_kernel<4>),
                             reinterpret_cast<const void *>(gather_kernel<1>), reinterpret_cast<const void *>(gather_kernel<4>)}) {
    check_cuda(cudaFuncGetAttributes(&attributes, kernel), "Could not load the kernels of a group of GPUs");
  }
}

bool is_apart(const Backend *one, const Backend *other) { return one->index != other->index; }

dim3 large_grid(int64_t threads) { return dim3(static_cast<unsigned>(std::clamp<int64_t>(ceil_div(threads, kLargeThreads), 1, kLargeBlocks))); }

}  // namespace

/* NCCL would go through main memory, slower than one GPU: only those who ask for it get that. */
void Peers::require_reach() const {
  const char *remedy = "set PAGESIFT_NCCL=1 to exchange results through NCCL, which is slower";
  if (members_.size() > kMostPeers) {
    throw Error(PS_UNSUPPORTED, std::to_string(members_.size()) + " GPUs cannot exchange results directly, at most " + std::to_string(kMostPeers) +
                                    " can; " + remedy);
  }
  for (const Backend *one : members_) {
    for (const Backend *other : members_) {
      int reaches = 1;
      if (is_apart(one, other)) check_cuda(cudaDeviceCanAccessPeer(&reaches, one->index, other->index), "Could not ask which GPUs reach each other");
      if (reaches) continue;
      throw Error(PS_UNSUPPORTED, "GPU " + std::to_string(one->index) + " cannot reach the memory of GPU " + std::to_string(other->index) +
                                      " directly; choose GPUs that NVLink or one PCIe switch connects (nvidia-smi topo -m), or " + remedy);
    }
  }
}

void Peers::connect() {
  require_reach();
  for (Backend *one : members_) {
    backend_enter(*one);
    load_kernels();
    copies_.push_back(nullptr);
    check_cuda(cudaStreamCreateWithFlags(&copies_.back(), cudaStreamNonBlocking), "Could not open a stream on the GPU");
    for (const Backend *other : members_) {
      if (!is_apart(one, other)) continue;
      const cudaError_t status = cudaDeviceEnablePeerAccess(other->index, 0);
      if (status == cudaErrorPeerAccessAlreadyEnabled) cudaGetLastError();
      else check_cuda(status, "Could not open the memory of another GPU");
    }
  }
  for (Backend *member : members_) inboxes_.push_back(static_cast<Inbox *>(memory_allocate(*member, sizeof(Inbox))));
  for (Backend *member : members_) backend_wait(*member);
}

Peers::~Peers() {
  for (size_t i = 0; i < inboxes_.size(); i++) memory_free(*members_[i], inboxes_[i], sizeof(Inbox));
  for (size_t i = 0; i < copies_.size(); i++) {
    cudaSetDevice(members_[i]->index);
    cudaStreamSynchronize(copies_[i]);
    cudaStreamDestroy(copies_[i]);
  }
  for (Exchange &exchange : exchanges_) {
    for (size_t i = 0; i < exchange.arrived.size(); i++) {
      cudaSetDevice(members_[i]->index);
      cudaFree(exchange.arrived[i]);
      cudaEventDestroy(exchange.ready[i]);
      cudaEventDestroy(exchange.sent[i]);
    }
  }
}

PeerParams Peers::params(size_t self) const {
  PeerParams params{};
  params.self = static_cast<int32_t>(self);
  params.members = static_cast<int32_t>(members_.size());
  for (size_t i = 0; i < members_.size(); i++) {
    params.inboxes[i] = inboxes_[i];
    params.notes[i] = members_[i]->bad_index;
    params.indices[i] = members_[i]->index;
  }
  return params;
}

void Peers::launch_sum(size_t self, const std::vector<float *> &data, int64_t count) {
  const auto fits = [&](int64_t n) {
    return count % n == 0 && std::all_of(data.begin(), data.end(), [&](const float *own) { return packs(own, 0, sizeof(float), n); });
  };
  Backend &member = *members_[self];
  backend_enter(member);
  if (count / (fits(2) ? 2 : 1) <= kSmallLines) {
    with_pack<2>(fits(2), [&](auto n) {
      const dim3 grid(static_cast<unsigned>(ceil_div(count / n(), kSmallThreads)));
      launch(member, "Could not launch sum_small", sum_small_kernel<n()>, grid, kSmallThreads, 0, params(self), data[self], count);
    });
    return;
  }
  PeerRows all{};
  std::copy(data.begin(), data.end(), all.data);
  with_pack<4>(fits(4), [&](auto n) {
    const dim3 grid = large_grid(ceil_div(count / n(), int64_t(kUnroll) * static_cast<int64_t>(data.size())));
    launch(member, "Could not launch sum_large", sum_large_kernel<n()>, grid, kLargeThreads, 0, params(self), all, count);
  });
}

void Peers::all_reduce(const std::vector<float *> &data, int64_t count) {
  for (size_t i = 0; i < data.size(); i++) launch_sum(i, data, count);
}

void Peers::all_gather(const std::vector<const float *> &x, const std::vector<float *> &out, int64_t out_stride, int64_t rows, int64_t width) {
  PeerRows all{};
  std::copy(out.begin(), out.end(), all.data);
  bool fit = width % 4 == 0;
  for (size_t i = 0; i < x.size(); i++) {
    fit = fit && packs(x[i], width, sizeof(float), 4) && packs(out[i], out_stride, sizeof(float), 4);
  }
  for (size_t i = 0; i < x.size(); i++) {
    Backend &member = *members_[i];
    backend_enter(member);
    with_pack<4>(fit, [&](auto n) {
      launch(member, "Could not launch gather", gather_kernel<n()>, large_grid(rows * width / n()), kLargeThreads, 0, params(i), x[i], all,
             out_stride, width / n(), rows);
    });
  }
}

}  // namespace ps
