/* How a block of matmul_batch.cu gets weights and x through its ring, and sums them. */
#pragma once

#include "cluster.cuh"
#include "gated.cuh"
#include "matmul_batch.h"
#include "tensor_copy.cuh"

namespace ps {
namespace {

constexpr int kPieceInputs = 64; /* of a row, 128 bytes: what a swizzle spans */
constexpr int kRowBytes = kPieceInputs * 2;
constexpr int kInstructionRows = 64;
constexpr int kSumThreads = 128; /* a warp group */
constexpr int kFactorThreads = 128;
constexpr int kBatchThreads = kSumThreads + 2 * kWarp + kFactorThreads; /* those, and the warps that request weights and x */
constexpr int kMostStages = 32, kMostPieces = 4;
constexpr int kLeastRows = 32, kMostRows = 192, kMostPairedRows = 128; /* of a tile; of a pair of blocks */
constexpr int kUnit = 1024; /* bytes that operands are aligned to */
constexpr int kUnderWay = 72 * 1024; /* bytes of weights that a block waits for at once */

struct BatchLaunch {
  MatmulParams p;
  const float *undo;      /* of RoundedX, as the following */
  const float *x_squares;
  int32_t x_parts;
  float eps;
  NextRows next;
  RoundedCopy copy;
  int32_t rows, tiles; /* outputs of a tile, a multiple of 16 */
  int32_t pieces, piece_bytes; /* of a stage: each the same inputs of all rows, then of x */
  int32_t steps;       /* stages of all inputs */
  int32_t stages, stage_bytes;
  int32_t depth;    /* stages of weights under way at once */
  int32_t clusters; /* that take tiles in turn: blocks, or pairs */
};

struct Store {};
struct Add {};

template <typename Ending>
constexpr bool kAdds = std::is_same<Ending, Add>::value;
template <typename Ending>
constexpr bool kIsGated = !std::is_same<Ending, Store>::value && !kAdds<Ending>;

/* Floats from one token to the next where a block collects sums: neither writes nor reads meet in a bank of shared memory. */
template <int T>
constexpr int kPartStride = T * kInstructionRows + 4;

#if defined(PS_HAS_WGMMA)

constexpr int kInstructionInputs = 16;
constexpr int kSumBarrier = 1, kSquareBarrier = 2, kFactorBarrier = 3; /* of the hardware: of threads that sum, that find factors, and of both */

struct Barriers {
  uint64_t weights[kMostStages], x[kMostStages], empty[kMostStages], sent, taken;
};

/* All lanes: tells every block of the cluster that the warp has come here, with all that it wrote. */
__device__ __forceinline__ void tell_cluster(uint64_t *barrier, int32_t blocks) {
  __syncwarp();
  const uint32_t lane = threadIdx.x % kWarp;
  if (lane < static_cast<uint32_t>(blocks)) wgmma::barrier_arrive_remote(shared_address(barrier), lane);
}

__device__ __forceinline__ void wait_for_cluster(uint64_t *barrier, uint32_t parity) { wgmma::barrier_wait_cluster(shared_address(barrier), parity); }

/* The ring of a block, by address. */
struct StageRing {
  uint32_t memory, weights, x, empty; /* barriers of each stage: weights or x have come, all has been read */
  int32_t stages, stage_bytes;
};

/* One stage after the other. Parities of its barriers change with each round. */
struct Turn {
  const StageRing &ring;
  int32_t stage = 0;
  uint32_t parity = 0;
  __device__ explicit Turn(const StageRing &of) : ring(of) {}
  __device__ uint32_t place() const { return ring.memory + stage * ring.stage_bytes; }
  __device__ uint32_t weights() const { return ring.weights + stage * 8; }
  __device__ uint32_t x() const { return ring.x + stage * 8; }
  __device__ uint32_t empty() const { return ring.empty + stage * 8; }
  __device__ void advance() {
    if (++stage < ring.stages) return;
    stage = 0, parity ^= 1;
  }
};

/* What a block reads: steps [first_step, last_step) of each of its tiles. */
struct Work {
  int32_t first_tile, last_tile, tile_step, first_step, last_step;
};

struct WorkTurn : Turn {
  const Work &work;
  int32_t tile, step;
  __device__ WorkTurn(const StageRing &ring, const Work &of) : Turn(ring), work(of), tile(of.first_tile), step(of.first_step) {}
  __device__ bool any() const { return tile < work.last_tile; }
  __device__ void advance() {
    Turn::advance();
    if (++step < work.last_step) return;
    step = work.first_step, tile += work.tile_step;
  }
};

/* Requests of weights and x, each by one thread in order. */
template <int N, bool Gated>
struct Requests {
  const CUtensorMap &weight_map, &x_map;
  int32_t rows, pieces, piece_bytes, depth;

  __device__ int32_t weight_bytes() const { return rows * kRowBytes; }

  /* `depth` stages at a time: more would not come sooner, and the kernel ahead would wait longer for what it reads. */
  __device__ void weights(WorkTurn turn) const {
    WorkTurn arriving = turn;
#pragma unroll 1
    for (int32_t i = 0; turn.any(); i++, turn.advance()) {
      if (i >= turn.ring.stages) wgmma::barrier_wait(turn.empty(), turn.parity ^ 1);
      if (i >= depth) {
        wgmma::barrier_wait(arriving.weights(), arriving.parity);
        arriving.advance();
      }
      wgmma::barrier_arrive_expecting(turn.weights(), pieces * weight_bytes());
#pragma unroll 1
      for (int32_t piece = 0; piece < pieces; piece++) {
        const uint32_t place = turn.place() + piece * piece_bytes;
        const int32_t input = (turn.step * pieces + piece) * kPieceInputs;
        if constexpr (Gated) wgmma::copy_box(place, weight_map, input, 0, 0, turn.tile * rows / 16, turn.weights());
        else wgmma::copy_box(place, weight_map, input, turn.tile * rows, turn.weights());
      }
    }
  }
  __device__ void x(WorkTurn turn) const {
#pragma unroll 1
    for (int32_t i = 0; turn.any(); i++, turn.advance()) {
      if (i >= turn.ring.stages) wgmma::barrier_wait(turn.empty(), turn.parity ^ 1);
      wgmma::barrier_arrive_expecting(turn.x(), pieces * N * kRowBytes);
#pragma unroll 1
      for (int32_t piece = 0; piece < pieces; piece++) {
        const uint32_t place = turn.place() + piece * piece_bytes + weight_bytes();
        wgmma::copy_box(place, x_map, (turn.step * pieces + piece) * kPieceInputs, 0, turn.x());
      }
    }
  }
};

/* Sums of one tile over `span` stages. Number 4j + c of part t is that of row 64t + 16 * warp + lane / 4 + 8 * (c / 2) and of token 8j + lane % 4 *
 * 2 + c % 2. */
template <typename W, int N, int T>
__device__ __forceinline__ void sum_tile(const BatchLaunch &launch, float (&sums)[T][N / 2], Turn &turn, int32_t span) {
  const bool tells = threadIdx.x % kWarp == 0;
  uint32_t before = 0;
#pragma unroll 1
  for (int32_t i = 0; i < span; i++, turn.advance()) {
    wgmma::barrier_wait(turn.x(), turn.parity);
    wgmma::barrier_wait(turn.weights(), turn.parity);
    wgmma::begin();
#pragma unroll 1
    for (int32_t piece = 0; piece < launch.pieces; piece++) {
      const uint32_t place = turn.place() + piece * launch.piece_bytes;
      const uint64_t a = wgmma::operand(place, 0), b = wgmma::operand(place + launch.rows * kRowBytes, 0);
#pragma unroll
      for (int k = 0; k < kPieceInputs / kInstructionInputs; k++) {
#pragma unroll
        for (int t = 0; t < T; t++) {
          constexpr int kPartUnits = kInstructionRows * kRowBytes / 16, kInputUnits = kInstructionInputs * 2 / 16;
          wgmma::product_shared<W, N>(sums[t], a + t * kPartUnits + k * kInputUnits, b + k * kInputUnits, k > 0 || piece > 0 || i > 0);
        }
      }
    }
    wgmma::commit();
    if (i > 0) {
      wgmma::wait<1>();
      if (tells) wgmma::barrier_arrive(before);
    }
    before = turn.empty();
  }
  wgmma::wait<0>();
#pragma unroll
  for (int t = 0; t < T; t++) wgmma::pin(sums[t]);
  if (tells) wgmma::barrier_arrive(before);
}

#endif

}  // namespace
}  // namespace ps
