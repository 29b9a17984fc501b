/* Products of 9 to 64 tokens with 16-bit weights on compute capability 9.0: bound by the bytes of the weights.
 *
 * A block takes a tile of up to 192 outputs. Its tensor cores multiply 64 of them with all tokens at once (wgmma), so shared memory delivers x once for
 * 64 outputs. A thread requests weights into a ring of stages, and it starts before the kernel ahead is done: while that one norms or attends, the
 * ring fills. Another thread requests x. Where that leaves multiprocessors without a tile, two blocks share out the inputs of a tile and send each
 * other their sums.
 *
 * Where gates are multiplied, a tile has 8 rows of gates, then their 8 partners, and so on. The answer is left rounded for the next product.
 *
 * Between the last sum and the answer nothing hides latency, so that code is short, has no branches in its arithmetic, and has run once before x
 * comes. */
#include <algorithm>

#include "../tensor_map.h"
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
constexpr int kBatchThreads = kSumThreads + 2 * kWarp; /* and the warps that request weights and x */
constexpr int kMostStages = 32, kMostPieces = 4;
constexpr int kMostRows = 192, kMostPairedRows = 128; /* of a tile; of a pair of blocks */
constexpr int kUnit = 1024; /* bytes that operands are aligned to */
constexpr int kUnderWay = 72 * 1024; /* bytes of weights that a block waits for at once */

struct BatchLaunch {
  MatmulParams p;
  const float *undo;
  RoundedCopy copy;
  int32_t rows, tiles; /* outputs of a tile, a multiple of 16 */
  int32_t pieces, piece_bytes; /* of a stage: each the same inputs of all rows, then of x */
  int32_t steps;       /* stages of all inputs */
  int32_t stages, stage_bytes;
  int32_t depth;    /* stages of weights under way at once */
  int32_t clusters; /* that take tiles in turn: blocks, or pairs */
};

struct Store {};

template <typename Ending>
constexpr bool kIsGated = !std::is_same<Ending, Store>::value;

/* Floats from one token to the next where a block collects sums: neither writes nor reads meet in a bank of shared memory. */
template <int T>
constexpr int kPartStride = T * kInstructionRows + 4;

#if defined(PS_HAS_WGMMA)

constexpr int kInstructionInputs = 16;
constexpr int kSumBarrier = 1; /* of the hardware, for the threads that sum */

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

/* Hands every block of the cluster the sums of its share of the rows, [source][token][kPartStride]. */
template <int N, int T, bool Paired>
__device__ __forceinline__ void send_tile(const float (&sums)[T][N / 2], float *parts, int32_t rows, int32_t share, int32_t rank) {
  const int32_t warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
#pragma unroll
  for (int t = 0; t < T; t++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int32_t row = t * kInstructionRows + 16 * warp + lane / 4 + 8 * h, owner = row >= share ? 1 : 0;
      if (row >= rows) continue;
      float *const own = parts + ((Paired ? rank * N : 0) + lane % 4 * 2) * kPartStride<T> + row - (Paired ? owner * share : 0);
      if (!Paired || owner == rank) {
#pragma unroll
        for (int i = 0; i < N / 4; i++) own[(i / 2 * 8 + i % 2) * kPartStride<T>] = sums[t][i / 2 * 4 + 2 * h + i % 2];
      } else {
        const uint32_t to = remote_address(shared_address(own), owner);
#pragma unroll
        for (int i = 0; i < N / 4; i++) write_remote(to + (i / 2 * 8 + i % 2) * kPartStride<T> * 4, sums[t][i / 2 * 4 + 2 * h + i % 2]);
      }
    }
  }
}

__device__ __forceinline__ Pack<float, 4> bias_pack(const Typed &bias, int64_t output, bool reads) {
  Pack<float, 4> out{};
  if (bias.data == nullptr || !reads) return out;
#pragma unroll
  for (int i = 0; i < 4; i++) out.value[i] = bias_at(bias, output + i);
  return out;
}

/* Adds up what the blocks sent, in their order, and stores it: outputs [first, first + share), or half as many behind gates. A thread takes four
 * outputs of a token at a time. width: outputs that there are, or 0 to store nothing. */
template <int N, int T, typename Ending, bool Paired>
__device__ __forceinline__ void store_share(const BatchLaunch &launch, const float *parts, int32_t share, int32_t first, int32_t tokens,
                                            int32_t width) {
  constexpr bool kGated = kIsGated<Ending>;
  const MatmulParams &p = launch.p;
  const int32_t quads = share / (kGated ? 8 : 4), outputs = static_cast<int32_t>(p.outputs / 2);
  int32_t token = static_cast<int32_t>(threadIdx.x) / quads, quad = static_cast<int32_t>(threadIdx.x) % quads;
#pragma unroll 1
  for (; token < tokens; token += kSumThreads / quads, quad += kSumThreads % quads) {
    if (quad >= quads) {
      quad -= quads;
      if (++token >= tokens) break;
    }
    const int32_t place = 4 * quad, output = first + place;
    const float *from = parts + token * kPartStride<T> + (kGated ? place + place / 8 * 8 : place);
    const bool stores = output < width;
    const float factor = launch.undo == nullptr || !stores ? 1.f : launch.undo[token];
    Pack<float, 4> sums = load_pack<4>(from);
    const Pack<float, 4> bias = bias_pack(p.bias, output, stores);
    if constexpr (kGated) {
      const Pack<float, 4> up = load_pack<4>(from + 8), up_bias = bias_pack(p.bias, outputs + output, stores);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        sums.value[j] = (up.value[j] * factor + up_bias.value[j]) * Ending::of(sums.value[j] * factor + bias.value[j]);
      }
    } else {
      const Pack<float, 4> more = Paired ? load_pack<4>(from + N * kPartStride<T>) : Pack<float, 4>{};
#pragma unroll
      for (int j = 0; j < 4; j++) sums.value[j] = (sums.value[j] + more.value[j]) * factor + bias.value[j];
    }
    if (!stores) continue;
    store_pack<4>(p.out.row(token) + output, sums);
    if constexpr (kGated) launch.copy.store<4>(token, output, sums);
  }
}

#endif

/* Paired: two blocks, a cluster, share out the inputs of a tile. */
template <typename W, int N, int T, typename Ending, bool Paired>
__global__ void __launch_bounds__(kBatchThreads, 1)
    batch_kernel(const __grid_constant__ CUtensorMap weights, const __grid_constant__ CUtensorMap x, const __grid_constant__ BatchLaunch launch) {
#if defined(PS_HAS_WGMMA)
  constexpr int kCluster = Paired ? 2 : 1;
  extern __shared__ char unaligned[];
  __shared__ Barriers barriers;
  char *const memory = unaligned + (kUnit - shared_address(unaligned) % kUnit) % kUnit;
  const StageRing ring{
      shared_address(memory), shared_address(barriers.weights), shared_address(barriers.x), shared_address(barriers.empty), launch.stages,
      launch.stage_bytes};
  float *const parts = reinterpret_cast<float *>(memory + launch.stages * launch.stage_bytes);
  const int32_t rank = Paired ? static_cast<int32_t>(cluster_rank()) : 0, first_tile = static_cast<int32_t>(blockIdx.x) / kCluster;
  const Work work{first_tile, launch.tiles, launch.clusters, launch.steps * rank / kCluster, launch.steps * (rank + 1) / kCluster};
  if (threadIdx.x == kSumThreads) {
    for (int32_t i = 0; i < launch.stages; i++) {
      wgmma::barrier_init(ring.weights + i * 8, 1);
      wgmma::barrier_init(ring.x + i * 8, 1);
      wgmma::barrier_init(ring.empty + i * 8, kSumThreads / kWarp);
    }
    wgmma::barrier_init(shared_address(&barriers.sent), kCluster * kSumThreads / kWarp);
    wgmma::barrier_init(shared_address(&barriers.taken), kCluster * kSumThreads / kWarp);
    wgmma::barrier_publish();
    wgmma::publish_stores();
  }
  let_next_start();
  __syncthreads();

  if (threadIdx.x >= kSumThreads) {
    if (Paired) cluster_arrive();
    const Requests<N, kIsGated<Ending>> requests{weights, x, launch.rows, launch.pieces, launch.piece_bytes, launch.depth};
    if (threadIdx.x == kSumThreads) requests.weights({ring, work});
    if (threadIdx.x == kSumThreads + kWarp) {
      wait_for_previous();
      requests.x({ring, work});
    }
    __syncwarp();
    if (Paired) cluster_wait(), cluster_sync();
    return;
  }

  const int32_t width = static_cast<int32_t>(kIsGated<Ending> ? launch.p.outputs / 2 : launch.p.outputs), share = launch.rows / kCluster;
  Turn turn(ring);
  float sums[T][N / 2] = {};
  /* The first time nothing is summed and nothing stored: while the kernel ahead still runs, the code comes from memory. */
#pragma unroll 1
  for (int32_t tile = first_tile - launch.clusters, n = -1; tile < launch.tiles; tile += launch.clusters, n++) {
    if (n == 0) {
      if (Paired) cluster_arrive();
      wait_for_previous();
      if (Paired) cluster_wait(); /* all blocks are there to be written to */
    }
    if (n >= 0) sum_tile<W, N, T>(launch, sums, turn, work.last_step - work.first_step);
    const bool alone = !Paired || n < 0;
    if (Paired && n > 0) wait_for_cluster(&barriers.taken, (n - 1) & 1);
    send_tile<N, T, Paired>(sums, parts, n < 0 ? share : launch.rows, share, n < 0 ? 0 : rank);
    if (!alone) {
      tell_cluster(&barriers.sent, kCluster);
      wait_for_cluster(&barriers.sent, n & 1);
    }
    wgmma::named_wait(kSumBarrier, kSumThreads);
    const int32_t first = tile * launch.rows / (kIsGated<Ending> ? 2 : 1) + rank * share;
    store_share<N, T, Ending, Paired>(launch, parts, share, n < 0 ? 0 : first, static_cast<int32_t>(launch.p.tokens), n < 0 ? 0 : width);
    if (tile + launch.clusters >= launch.tiles) continue;
    wgmma::named_wait(kSumBarrier, kSumThreads);
    if (!alone) tell_cluster(&barriers.taken, kCluster);
  }
  __syncwarp();
  if (Paired) cluster_sync(); /* no block ends before the other has sent it all */
#endif
}

/* Outputs of a tile, and the blocks that share its inputs. */
struct Cut {
  int32_t rows, blocks;
};

/* The cut that ends first, by the rows of 64 inputs that a block receives: those of x come from the L2 cache and count half. Sending sums costs as
 * much as kSending of them. */
Cut choose_cut(const Backend &backend, const MatmulParams &p, int64_t tokens, bool gated) {
  constexpr int64_t kSending = 300, kLeastPieces = 2 * kMostPieces;
  const int64_t pieces = ceil_div(p.inputs, kPieceInputs);
  Cut best{};
  int64_t least = INT64_MAX;
  for (int32_t blocks = 1; blocks <= (gated || pieces < kLeastPieces ? 1 : 2); blocks++) {
    for (int32_t rows = 32; rows <= (blocks > 1 ? kMostPairedRows : kMostRows); rows += 16) {
      const int64_t tiles = ceil_div(ceil_div(p.outputs, rows), backend.multiprocessors / blocks);
      const int64_t cost = tiles * ceil_div(pieces, blocks) * (rows + tokens / 2) + (blocks > 1 ? kSending : 0);
      if (cost < least) least = cost, best = {rows, blocks};
    }
  }
  return best;
}

template <typename W>
CUtensorMap map_x(const MatmulParams &p, const RoundedX &x, uint32_t tokens) {
  return make_tensor_map(
      {x.data, p.weight.dtype, 2, {uint64_t(p.inputs), uint64_t(p.tokens)}, {0, uint64_t(x.stride) * sizeof(W)}, {kPieceInputs, tokens}});
}

template <typename W>
CUtensorMap map_weights(const MatmulParams &p, uint32_t rows, bool gated) {
  const uint64_t inputs = uint64_t(p.inputs), outputs = uint64_t(p.outputs), row_bytes = uint64_t(p.weight.stride) * sizeof(W);
  if (!gated) return make_tensor_map({p.weight.data, p.weight.dtype, 2, {inputs, outputs}, {0, row_bytes}, {kPieceInputs, rows}});
  return make_tensor_map({p.weight.data,
                          p.weight.dtype,
                          4,
                          {inputs, 8, 2, outputs / 16},
                          {0, row_bytes, outputs / 2 * row_bytes, 8 * row_bytes},
                          {kPieceInputs, 8, 2, rows / 16}});
}

template <typename W, int N, int T, typename Ending, bool Paired>
void launch_cut(Backend &backend, const MatmulParams &p, const RoundedX &x, const RoundedCopy &copy, const Cut &cut) {
  const int64_t piece_rows = std::max<int64_t>(cut.rows + N, T * kInstructionRows); /* an instruction reads 64, also of fewer */
  const int64_t pieces = cut.rows <= kMostRows / 4   ? kMostPieces
                         : cut.rows <= kMostRows / 2 ? 2
                                                     : 1,
                piece_bytes = piece_rows * kRowBytes, stage_bytes = pieces * piece_bytes;
  const int64_t weight_bytes = pieces * cut.rows * kRowBytes, part_bytes = cut.blocks * int64_t(sizeof(float)) * N * kPartStride<T>;
  const int64_t barrier_bytes = int64_t(sizeof(uint64_t)) * (3 * kMostStages + 2), room = backend.shared_bytes - barrier_bytes - kUnit - part_bytes;
  const int64_t stages = std::min<int64_t>(kMostStages, room / stage_bytes), tiles = ceil_div(p.outputs, cut.rows);
  BatchLaunch launch_params{};
  launch_params.p = p;
  launch_params.undo = x.undo;
  launch_params.copy = copy;
  launch_params.rows = cut.rows;
  launch_params.tiles = static_cast<int32_t>(tiles);
  launch_params.pieces = static_cast<int32_t>(pieces);
  launch_params.piece_bytes = static_cast<int32_t>(piece_bytes);
  launch_params.steps = static_cast<int32_t>(ceil_div(p.inputs, kPieceInputs * pieces));
  launch_params.stages = static_cast<int32_t>(stages);
  launch_params.stage_bytes = static_cast<int32_t>(stage_bytes);
  launch_params.depth = static_cast<int32_t>(std::min(stages, ceil_div(kUnderWay, weight_bytes)));
  launch_params.clusters = static_cast<int32_t>(std::min<int64_t>(tiles, backend.multiprocessors / cut.blocks));
  auto *kernel = batch_kernel<W, N, T, Ending, Paired>;
  const char *what = "Could not launch matmul";
  const int64_t shared_bytes = kUnit + stages * stage_bytes + part_bytes;
  const CUtensorMap weights = map_weights<W>(p, static_cast<uint32_t>(cut.rows), kIsGated<Ending>), rounded = map_x<W>(p, x, N);
  leave_no_cache(what, kernel);
  if (Paired) {
    launch_clusters_together(backend, what, kernel, launch_params.clusters, 1, cut.blocks, kBatchThreads, shared_bytes, weights, rounded,
                             launch_params);
  } else {
    launch(backend, what, kernel, dim3(static_cast<unsigned>(launch_params.clusters)), kBatchThreads, shared_bytes, weights, rounded, launch_params);
  }
}

template <typename W, int N, typename Ending>
void launch_tokens(Backend &backend, const MatmulParams &p, const RoundedX &x, const RoundedCopy &copy) {
  const Cut cut = choose_cut(backend, p, N, kIsGated<Ending>);
  if constexpr (!kIsGated<Ending>) {
    if (cut.blocks > 1 && cut.rows <= 64) return launch_cut<W, N, 1, Ending, true>(backend, p, x, copy, cut);
    if (cut.blocks > 1) return launch_cut<W, N, 2, Ending, true>(backend, p, x, copy, cut);
  }
  if (cut.rows <= 64) return launch_cut<W, N, 1, Ending, false>(backend, p, x, copy, cut);
  if (cut.rows <= 128) return launch_cut<W, N, 2, Ending, false>(backend, p, x, copy, cut);
  return launch_cut<W, N, 3, Ending, false>(backend, p, x, copy, cut);
}

template <typename W, typename Ending>
void launch_ending(Backend &backend, const MatmulParams &p, const RoundedX &x, const RoundedCopy &copy) {
  if (p.tokens <= 16) return launch_tokens<W, 16, Ending>(backend, p, x, copy);
  if (p.tokens <= 24) return launch_tokens<W, 24, Ending>(backend, p, x, copy);
  if (p.tokens <= 32) return launch_tokens<W, 32, Ending>(backend, p, x, copy);
  if (p.tokens <= 48) return launch_tokens<W, 48, Ending>(backend, p, x, copy);
  return launch_tokens<W, 64, Ending>(backend, p, x, copy);
}

template <typename W>
void launch_type(Backend &backend, const MatmulParams &p, const RoundedX &x, ps_ending ending, const RoundedCopy &copy) {
  if (ending == PS_SILU_MUL) return launch_ending<W, Silu>(backend, p, x, copy);
  if (ending == PS_GELU_MUL) return launch_ending<W, Gelu>(backend, p, x, copy);
  return launch_ending<W, Store>(backend, p, x, copy);
}

}  // namespace

bool takes_batch(const Backend &backend, const MatmulParams &p, ps_ending ending) {
  constexpr int64_t kMost = INT32_MAX / 2;
  if (backend.capability != 90 || p.tokens > kMostBatchTokens || p.outputs > kMost || p.inputs > kMost) return false;
  if (p.weight.dtype == PS_F32 || is_block_format(p.weight.dtype) || !packs(p.weight, 8) || !packs(p.out, 4)) return false;
  return ending == PS_STORE ? p.outputs % 4 == 0 : ending != PS_ADD && p.outputs % 16 == 0;
}

void matmul_batch(Backend &backend, const MatmulParams &p, const RoundedX &x, ps_ending ending, const RoundedCopy &copy) {
  if (p.weight.dtype == PS_F16) launch_type<f16>(backend, p, x, ending, copy);
  else launch_type<bf16>(backend, p, x, ending, copy);
}

}  // namespace ps
