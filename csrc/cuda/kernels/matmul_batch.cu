/* Products of 9 to 64 tokens with 16-bit weights on compute capability 9.0: bound by the bytes of the weights.
 *
 * A block takes a tile of up to 192 outputs. Its tensor cores multiply 64 of them with all tokens at once (wgmma), so shared memory delivers x once for
 * 64 outputs. A thread requests weights into a ring of stages, and it starts before the kernel ahead is done: while that one norms or attends, the
 * ring fills. Another thread requests x. Where that leaves multiprocessors without a tile, two blocks share out the inputs of a tile and send each
 * other their sums.
 *
 * Where gates are multiplied, a tile has 8 rows of gates, then their 8 partners, and so on. The answer is left rounded for the next product.
 *
 * A norm between two products takes no launch: the first, which ends in a sum, leaves that times the norm's weights, rounded, and sums of its squares;
 * the second finds the norm's factor from those while it sums, and multiplies its sums by it.
 *
 * Between the last sum and the answer nothing hides latency, so that code is short, has no branches in its arithmetic, and has run once before x
 * comes. */
#include <algorithm>

#include "../tensor_map.h"
#include "matmul_batch_store.cuh"

namespace ps {
namespace {

/* Paired: two blocks, a cluster, share out the inputs of a tile. */
template <typename W, int N, int T, typename Ending, bool Paired>
__global__ void __launch_bounds__(kBatchThreads, 1)
    batch_kernel(const __grid_constant__ CUtensorMap weights, const __grid_constant__ CUtensorMap x, const __grid_constant__ BatchLaunch launch) {
#if defined(PS_HAS_WGMMA)
  constexpr int kCluster = Paired ? 2 : 1;
  extern __shared__ char unaligned[];
  __shared__ Barriers barriers;
  __shared__ float factors[N];
  char *const memory = unaligned + (kUnit - shared_address(unaligned) % kUnit) % kUnit;
  const StageRing ring{
      shared_address(memory), shared_address(barriers.weights), shared_address(barriers.x), shared_address(barriers.empty), launch.stages,
      launch.stage_bytes};
  float *const parts = reinterpret_cast<float *>(memory + launch.stages * launch.stage_bytes), *const squares = parts + kCluster * N * kPartStride<T>;
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
    if (threadIdx.x >= kBatchThreads - kFactorThreads) {
      wait_for_previous();
      find_factors<N>(launch, static_cast<int32_t>(threadIdx.x) - (kBatchThreads - kFactorThreads), factors);
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
    const int32_t first = n < 0 ? 0 : tile * launch.rows / (kIsGated<Ending> ? 2 : 1) + rank * share, stored = n < 0 ? 0 : width;
    Addend addends[kEarlyAddends] = {};
    if constexpr (kAdds<Ending>) {
      Quad at(share / 4);
#pragma unroll
      for (int i = 0; i < kEarlyAddends; i++, at.advance()) {
        const int32_t output = first + 4 * at.quad;
        addends[i] = load_addend(launch, at.token, output, at.token < launch.p.tokens && output < stored);
      }
    }
    if (n >= 0) sum_tile<W, N, T>(launch, sums, turn, work.last_step - work.first_step);
    const bool alone = !Paired || n < 0;
    if (Paired && n > 0) wait_for_cluster(&barriers.taken, (n - 1) & 1);
    send_tile<N, T, Paired>(sums, parts, n < 0 ? share : launch.rows, share, n < 0 ? 0 : rank);
    if (!alone) {
      tell_cluster(&barriers.sent, kCluster);
      wait_for_cluster(&barriers.sent, n & 1);
    }
    if (n == 0) wgmma::named_wait(kFactorBarrier, kSumThreads + kFactorThreads);
    else wgmma::named_wait(kSumBarrier, kSumThreads);
    store_share<N, T, Ending, Paired>(launch, parts, factors, squares, addends, share, first, static_cast<int32_t>(launch.p.tokens), stored);
    if constexpr (kAdds<Ending>) {
      wgmma::named_wait(kSumBarrier, kSumThreads);
      store_squares(launch, squares, share / 4, n < 0 ? -1 : tile * kCluster + rank);
    }
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
    for (int32_t rows = kLeastRows; rows <= (blocks > 1 ? kMostPairedRows : kMostRows); rows += 16) {
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
int32_t launch_cut(Backend &backend, const MatmulParams &p, const RoundedX &x, const RoundedCopy &copy, const NextRows &next, const Cut &cut) {
  const int64_t piece_rows = std::max<int64_t>(cut.rows + N, T * kInstructionRows); /* an instruction reads 64, also of fewer */
  const int64_t pieces = cut.rows <= kMostRows / 4   ? kMostPieces
                         : cut.rows <= kMostRows / 2 ? 2
                                                     : 1,
                piece_bytes = piece_rows * kRowBytes, stage_bytes = pieces * piece_bytes;
  const int64_t weight_bytes = pieces * cut.rows * kRowBytes, square_bytes = kAdds<Ending> ? N * cut.rows / cut.blocks : 0,
                part_bytes = cut.blocks * int64_t(sizeof(float)) * N * kPartStride<T> + square_bytes;
  const int64_t static_bytes = int64_t(sizeof(uint64_t)) * (3 * kMostStages + 2) + int64_t(sizeof(float)) * (N + kFactorThreads),
                room = backend.shared_bytes - static_bytes - kUnit - part_bytes;
  const int64_t stages = std::min<int64_t>(kMostStages, room / stage_bytes), tiles = ceil_div(p.outputs, cut.rows);
  BatchLaunch launch_params{};
  launch_params.p = p;
  launch_params.undo = x.undo;
  launch_params.x_squares = x.normed.squares;
  launch_params.x_parts = x.normed.parts;
  launch_params.eps = x.normed.eps;
  launch_params.next = next;
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
  return launch_params.tiles * cut.blocks;
}

template <typename W, int N, typename Ending>
int32_t launch_tokens(Backend &backend, const MatmulParams &p, const RoundedX &x, const RoundedCopy &copy, const NextRows &next) {
  const Cut cut = choose_cut(backend, p, N, kIsGated<Ending>);
  if constexpr (!kIsGated<Ending>) {
    if (cut.blocks > 1 && cut.rows <= 64) return launch_cut<W, N, 1, Ending, true>(backend, p, x, copy, next, cut);
    if (cut.blocks > 1) return launch_cut<W, N, 2, Ending, true>(backend, p, x, copy, next, cut);
  }
  if (cut.rows <= 64) return launch_cut<W, N, 1, Ending, false>(backend, p, x, copy, next, cut);
  if (cut.rows <= 128) return launch_cut<W, N, 2, Ending, false>(backend, p, x, copy, next, cut);
  return launch_cut<W, N, 3, Ending, false>(backend, p, x, copy, next, cut);
}

template <typename W, typename Ending>
int32_t launch_ending(Backend &backend, const MatmulParams &p, const RoundedX &x, const RoundedCopy &copy, const NextRows &next) {
  if (p.tokens <= 16) return launch_tokens<W, 16, Ending>(backend, p, x, copy, next);
  if (p.tokens <= 24) return launch_tokens<W, 24, Ending>(backend, p, x, copy, next);
  if (p.tokens <= 32) return launch_tokens<W, 32, Ending>(backend, p, x, copy, next);
  if (p.tokens <= 48) return launch_tokens<W, 48, Ending>(backend, p, x, copy, next);
  return launch_tokens<W, 64, Ending>(backend, p, x, copy, next);
}

template <typename W>
int32_t launch_type(Backend &backend, const MatmulParams &p, const RoundedX &x, ps_ending ending, const RoundedCopy &copy, const NextRows &next) {
  if (ending == PS_SILU_MUL) return launch_ending<W, Silu>(backend, p, x, copy, next);
  if (ending == PS_GELU_MUL) return launch_ending<W, Gelu>(backend, p, x, copy, next);
  if constexpr (std::is_same<W, bf16>::value) {
    if (ending == PS_ADD) return launch_ending<W, Add>(backend, p, x, copy, next);
  }
  return launch_ending<W, Store>(backend, p, x, copy, next);
}

}  // namespace

bool takes_batch(const Backend &backend, const MatmulParams &p, ps_ending ending) {
  constexpr int64_t kMost = INT32_MAX / 2;
  if (backend.capability != 90 || p.tokens > kMostBatchTokens || p.outputs > kMost || p.inputs > kMost) return false;
  if (p.weight.dtype == PS_F32 || is_block_format(p.weight.dtype) || !packs(p.weight, 8) || !packs(p.out, 4)) return false;
  if (ending == PS_ADD && p.weight.dtype != PS_BF16) return false;
  return ending == PS_STORE || ending == PS_ADD ? p.outputs % 4 == 0 : p.outputs % 16 == 0;
}

int64_t most_square_parts(const MatmulParams &p) { return 2 * ceil_div(p.outputs, kLeastRows); }

int32_t matmul_batch(Backend &backend, const MatmulParams &p, const RoundedX &x, ps_ending ending, const RoundedCopy &copy, const NextRows &next) {
  if (p.weight.dtype == PS_F16) return launch_type<f16>(backend, p, x, ending, copy, next);
  return launch_type<bf16>(backend, p, x, ending, copy, next);
}

}  // namespace ps
