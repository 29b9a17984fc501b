/* The matrix-vector kernel for 16-bit weights in aligned rows: 1 to 8 tokens on tensor cores, every weight read once. Bound by
 * 2 * outputs * inputs bytes.
 *
 * A block takes a share of the outputs and, where x is large, of the inputs too (add_splits_kernel in matvec.cu then adds up). It
 * splits its x once into 16-bit parts that keep all (bf16) or 22 (f16) bits and lie in shared memory as the instruction expects them.
 * Then it walks over its tiles of 8 outputs, two at a turn; its warps share out the inputs in chunks of 32. Each lane copies its own 16-byte
 * pieces of weights into its own slots of a ring in shared memory, Depth chunks ahead and across turns, and no thread waits for another but
 * once per turn. The next kernel may start at once. A multiprocessor takes one block of a product, and beside it one of the next
 * (shared_bytes_of in matvec.cu), which fills its ring with weights while this one ends and its x is computed.
 *
 * Of one token, the product may take in what surrounds it (joins.cuh). Each block multiplies x by the norm's weights as it splits it, and the
 * outputs by the norm's factor, for which no thread waits. A turn of a gated block has 8 gates and the 8 numbers that they multiply.
 *
 * The instruction multiplies 16 rows by 8 columns. 8 rows of weights are its columns, for a lane's 16 bytes then are its operands as
 * they lie; its rows are two parts of x of each token. A lane holds 8 consecutive inputs where the instruction expects pairs 2t and
 * 2t + 8; weights and x are permuted alike, so the sum is the same. Tensor cores round sums down, so each chunk starts from zero and is
 * added in f32. */
#pragma once

#include "add_splits.cuh"
#include "joins.cuh"
#include "matvec_split.cuh"
#include "mma.cuh"

namespace ps {

constexpr int kStreamWarps = 8, kStreamThreads = kStreamWarps * kWarp;
constexpr int kStreamBlocks = 2;     /* whose registers fit a multiprocessor: half of them are for small kernels */
constexpr int kTileOutputs = 8;      /* columns of an instruction */
constexpr int kTurnOutputs = 2 * kTileOutputs;
constexpr int kChunk = 32;           /* inputs: 8 a lane, two instructions */
constexpr int kSlotBytes = 16;       /* 8 inputs */
constexpr int kLanesAToken = kChunk * 2 / kSlotBytes; /* lanes that hold a chunk of one token, or of one row of weights */
constexpr int kXLoads = 4;           /* pieces of x that a thread loads at once */

/* Shared memory, in this order: ring, parts of x, for f16 what undoes their scale, sums of the warps (twice: a tile is added up while
 * the next one is begun). */
PS_HOST_DEVICE constexpr int64_t ring_bytes(int depth) { return int64_t(depth) * 2 * kStreamThreads * kSlotBytes; }
PS_HOST_DEVICE constexpr int64_t x_bytes(int64_t chunks, int64_t tokens, int parts) { return chunks * tokens * parts * kLanesAToken * kSlotBytes; }
PS_HOST_DEVICE constexpr int64_t undo_bytes(int64_t chunks, int64_t tokens) { return (chunks * tokens + 3) / 4 * 16; }
PS_HOST_DEVICE constexpr int64_t warp_sum_bytes(int64_t tokens) { return int64_t(2) * kStreamWarps * tokens * kTurnOutputs * 4; }

/* Volatile, so that the compiler keeps reads of a slot before the copy that fills it again. */
__device__ __forceinline__ uint4 read_slot(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}
__device__ __forceinline__ void write_slot(uint32_t address, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w));
}

/* Splits the share's x, times the norm's weights, into parts, [chunks, slots, tokens, 4 lanes] at `target`, and for f16 writes what undoes
 * the scale of every chunk, [chunks, tokens]. Returns the sum of squares of the numbers that this thread split, with a norm. */
template <typename W>
__device__ __forceinline__ float prepare_x(const MatmulParams &p, const Joins &joins, const Share &share, uint32_t target, float *undo) {
  const int tokens = static_cast<int>(p.tokens), pieces = tokens * share.chunks * kLanesAToken;
  float squares = 0;
  for (int first = 0; first < pieces; first += kStreamThreads * kXLoads) {
    uint4 loaded[kXLoads][2];
    NormFactors<8> factors[kXLoads] = {}; /* zeros past the last input: what happens to be there could be NaN */
    int chunk[kXLoads], token[kXLoads];
    const int lane = threadIdx.x % kLanesAToken;
#pragma unroll
    for (int load = 0; load < kXLoads; load++) {
      const unsigned piece = first + load * kStreamThreads + threadIdx.x, chunks = share.chunks;
      token[load] = static_cast<int>(piece / kLanesAToken / chunks);
      chunk[load] = static_cast<int>(piece / kLanesAToken % chunks);
      const int64_t k = int64_t(share.first_chunk + chunk[load]) * kChunk + lane * 8;
      const bool valid = token[load] < tokens && k < p.inputs; /* zeros for inputs past the last */
      const uint4 *x = reinterpret_cast<const uint4 *>(p.x.row(token[load]) + k);
      loaded[load][0] = valid ? x[0] : uint4{};
      loaded[load][1] = valid ? x[1] : uint4{};
      if (joins.norm != nullptr && valid) factors[load].load(joins, k);
    }
#pragma unroll
    for (int load = 0; load < kXLoads; load++) {
      if (first + load * kStreamThreads >= pieces) break; /* alike in the whole block */
      float x[8];
#pragma unroll
      for (int half = 0; half < 2; half++) {
        x[4 * half] = __uint_as_float(loaded[load][half].x), x[4 * half + 1] = __uint_as_float(loaded[load][half].y);
        x[4 * half + 2] = __uint_as_float(loaded[load][half].z), x[4 * half + 3] = __uint_as_float(loaded[load][half].w);
      }
      if (joins.norm != nullptr) squares += factors[load].apply(joins, x);
      const float own_undo = std::is_same<W, f16>::value ? scale_x(x) : 1.f;
      if (token[load] >= tokens) continue;
      if (std::is_same<W, f16>::value && lane == 0) undo[chunk[load] * tokens + token[load]] = own_undo;
      uint32_t parts[kParts<W>][4];
      split_x<W>(x, parts);
#pragma unroll
      for (int slot = 0; slot < kParts<W>; slot++) {
        const int place = ((chunk[load] * kParts<W> + slot) * tokens + token[load]) * kLanesAToken + lane;
        write_slot(target + place * kSlotBytes, arrange_slot<W>(parts, slot));
      }
    }
  }
  return squares;
}

/* A lane's part of the sums of a turn. [2]: of its tiles. */
template <typename W>
struct Sums {
  float large[2][4] = {}; /* of the two larger parts, whole sums */
  /* Of the third part: its sums are so small that they stay in the tensor cores. Upper rows of the first and lower rows of the second
   * hold it, the others what nobody reads. */
  float small[2][2][4] = {};

  /* Adds one chunk. weights: row g of either half; x: the slots of token g; undo: what takes back the scale of token g. */
  __device__ __forceinline__ void add(const uint4 (&weights)[2], const uint4 (&x)[kParts<W>], float undo) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float chunk[4] = {};
      multiply_add<W>(chunk, {x[0].x, x[0].y, x[0].z, x[0].w}, weights[half].x, weights[half].y);
      multiply_add<W>(chunk, {x[1].x, x[1].y, x[1].z, x[1].w}, weights[half].z, weights[half].w);
      if constexpr (kParts<W> == 3) {
        multiply_add<W>(small[half][0], {x[2].x, x[2].y, x[2].z, x[2].w}, weights[half].x, weights[half].y);
        multiply_add<W>(small[half][1], {x[2].x, x[2].y, x[2].z, x[2].w}, weights[half].z, weights[half].w);
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
        large[half][i] = std::is_same<W, f16>::value ? fmaf(chunk[i], undo, large[half][i]) : large[half][i] + chunk[i];
      }
    }
  }

  /* Of token g and output 8 * half + 2t + i. */
  __device__ __forceinline__ float total(int half, int i) const {
    return large[half][i] + (large[half][2 + i] + (small[half][0][i] + small[half][1][2 + i]));
  }
};

/* The ring of one lane, and where in the share the copies into it stand. */
template <typename W>
struct Stream {
  const MatmulParams &p;
  const Share &share;
  const int first_k, end_k, inputs; /* this lane's first input, where those of the share end, and all */
  const int turn_tiles;             /* from one turn to the next */
  const int64_t to_second;          /* rows from the first tile of a turn to the second */
  const W *rows[2];                 /* of the turn's tiles, this lane's */
  int tile, k;

  __device__ __forceinline__ Stream(const MatmulParams &params, const Joins &joins, const Share &share_of_block)
      : p(params),
        share(share_of_block),
        first_k((share.first_chunk + static_cast<int>(threadIdx.x) / kWarp) * kChunk + threadIdx.x % kLanesAToken * 8),
        end_k((share.first_chunk + share.chunks) * kChunk),
        inputs(static_cast<int>(p.inputs)),
        turn_tiles(joins.gated() ? 1 : 2),
        to_second(joins.gated() ? p.outputs / 2 : kTileOutputs),
        tile(share.first_tile),
        k(first_k) {
    if (first_k >= end_k) tile = share.end_tile; /* nothing for this warp */
    start_turn();
  }

  __device__ __forceinline__ bool active() const { return tile < share.end_tile; }

  /* Rows past the last are read as the last one; their sums are not stored. */
  __device__ __forceinline__ void start_turn() {
#pragma unroll
    for (int second = 0; second < 2; second++) {
      const int64_t row = int64_t(tile) * kTileOutputs + second * to_second + threadIdx.x % kWarp / kLanesAToken, last = p.outputs - 1;
      rows[second] = static_cast<const W *>(p.weight.data) + (row < last ? row : last) * p.weight.stride;
    }
  }

  /* Copies this lane's weights of the next chunk to slots of the ring, zeros for inputs past the last and for a tile past the share's. */
  __device__ __forceinline__ void copy_next(uint32_t slots) {
    const bool valid = k < inputs;
    const int from = valid ? k : 0;
    copy_async_once(slots, rows[0] + from, valid);
    copy_async_once(slots + kStreamThreads * kSlotBytes, rows[1] + from, valid && tile + turn_tiles - 1 < share.end_tile);
    k += kStreamWarps * kChunk;
    if (k < end_k) return;
    k = first_k;
    tile += turn_tiles;
    if (active()) start_turn();
  }
};

/* Where the outputs of a share end. */
__device__ __forceinline__ int64_t end_output(const MatmulParams &p, const Share &share) {
  const int64_t end = int64_t(share.end_tile) * kTileOutputs;
  return end < p.outputs ? end : p.outputs;
}

/* Adds up what the warps found in the turn from `tile` on, always in the same order, and stores it. partial [warps, tokens, 16]: of one turn in
 * two. before: what stands where the thread's output goes, for PS_ADD; scale: of the norm, which the first turn finds from squares [warps]. */
template <typename W>
__device__ __forceinline__ void store_turn(const MatmulParams &p, const Joins &joins, const Share &share, float *splits, float *partial,
                                           const Sums<W> &sums, int tile, float before, const float *squares, float &scale) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, tokens = static_cast<int>(p.tokens);
  if (lane / 4 < tokens) {
    float *own = partial + (warp * tokens + lane / 4) * kTurnOutputs + lane % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) *reinterpret_cast<float2 *>(own + half * 8) = {sums.total(half, 0), sums.total(half, 1)};
  }
  __syncthreads(); /* also: the turn before has been read */
  const int place = threadIdx.x, token = place / kTurnOutputs;
  const int64_t n = int64_t(tile) * kTileOutputs + place % kTurnOutputs;
  if (token >= tokens || (!joins.gated() && n >= end_output(p, share))) return;
  float total = 0;
#pragma unroll
  for (int w = 0; w < kStreamWarps; w++) total += partial[w * tokens * kTurnOutputs + place];
  if (squares != nullptr) scale = norm_scale<kStreamWarps>(joins, squares, p.inputs);
  if (joins.gated()) {
    const int64_t column = int64_t(tile) * kTileOutputs + place % kTileOutputs;
    const float own = total * scale + bias_at(p.bias, place < kTileOutputs ? column : p.outputs / 2 + column);
    const float up = __shfl_down_sync((1u << kTurnOutputs) - 1, own, kTileOutputs);
    if (place < kTileOutputs) p.out.data[column] = activate(joins.ending, own) * up;
  } else if (splits == nullptr) {
    p.out.row(token)[n] = before + (total * scale + bias_at(p.bias, n));
  } else {
    splits[(int64_t(blockIdx.y) * tokens + token) * p.outputs + n] = total;
  }
}

/* No operation writes 16-bit numbers to a buffer, so the weights are there before the previous kernel is done: the ring is filled
 * with them while it still runs. x may be its result. A block beyond the tiles only keeps its multiprocessor for the next kernel's. */
template <typename W, int Depth>
__global__ void __launch_bounds__(kStreamThreads, kStreamBlocks)
    stream_kernel(const __grid_constant__ MatmulParams p, const __grid_constant__ Joins joins, const __grid_constant__ Shares shares) {
  static_assert(sizeof(W) == 2, "A slot holds the 8 inputs that a lane of the instruction takes, and only 16-bit weights may be read early");
  static_assert(kFewTokens * kTurnOutputs <= kStreamThreads, "One thread adds up one output of a turn");
  extern __shared__ __align__(kLineBytes) uint4 shared[];
  let_next_start();
  const Share share(shares);
  __shared__ float squares[kStreamWarps];
  Stream<W> stream(p, joins, share);
  constexpr uint32_t kStageBytes = ring_bytes(1);
  const uint32_t ring = shared_address(shared) + threadIdx.x * kSlotBytes, ring_end = ring + Depth * kStageBytes;
#pragma unroll
  for (int stage = 0; stage < Depth; stage++) {
    if (stream.active()) stream.copy_next(ring + stage * kStageBytes);
    copy_commit();
  }
  const int tokens = static_cast<int>(p.tokens), lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const uint32_t x_slots = shared_address(shared) + Depth * kStageBytes;
  char *const after_x = reinterpret_cast<char *>(shared) + ring_bytes(Depth) + x_bytes(share.chunks, tokens, kParts<W>);
  float *const undos = reinterpret_cast<float *>(after_x);
  float *partial = reinterpret_cast<float *>(after_x + (std::is_same<W, f16>::value ? undo_bytes(share.chunks, tokens) : 0));
  joins.prefetch(p.inputs);
  wait_for_previous();
  if (share.first_tile >= share.end_tile) return;
  const float own_squares = prepare_x<W>(p, joins, share, x_slots, undos);
  __syncthreads();
  if (joins.norm != nullptr) { /* added up by threads that store, after the barrier in store_turn */
    const float sum = warp_sum(own_squares);
    if (lane == 0) squares[warp] = sum;
  }

  /* Rows past the tokens compute the last one once more; they are not stored. */
  const int token = lane / 4 < tokens ? lane / 4 : tokens - 1;
  const uint32_t slot_bytes = tokens * kLanesAToken * kSlotBytes, step_bytes = kStreamWarps * kParts<W> * slot_bytes;
  const uint32_t own_x = x_slots + warp * kParts<W> * slot_bytes + (token * kLanesAToken + lane % 4) * kSlotBytes;
  uint32_t slots = ring;
  int flip = 0;
  float scale = 1;
  for (int tile = share.first_tile; tile < share.end_tile; tile += stream.turn_tiles) {
    Sums<W> sums;
    const int64_t own_output = int64_t(tile) * kTileOutputs + threadIdx.x;
    const bool adds = joins.ending == PS_ADD && shares.sums == nullptr && threadIdx.x < kTurnOutputs && own_output < end_output(p, share);
    const float before = adds ? p.out.data[own_output] : 0.f; /* of one token: asked for early */
    uint32_t x_address = own_x;
    for (int chunk = warp; chunk < share.chunks; chunk += kStreamWarps, x_address += step_bytes) {
      copy_wait<Depth - 1>();
      const uint4 weights[2] = {read_slot(slots), read_slot(slots + kStreamThreads * kSlotBytes)};
      uint4 x[kParts<W>];
#pragma unroll
      for (int slot = 0; slot < kParts<W>; slot++) x[slot] = read_slot(x_address + slot * slot_bytes);
      const float undo = std::is_same<W, f16>::value ? undos[chunk * tokens + token] : 1.f;
      if (stream.active()) stream.copy_next(slots);
      copy_commit();
      slots += kStageBytes;
      if (slots == ring_end) slots = ring;
      sums.add(weights, x, undo);
    }
    store_turn<W>(p, joins, share, shares.sums, partial + flip * kStreamWarps * tokens * kTurnOutputs, sums, tile, before,
                  tile == share.first_tile ? squares : nullptr, scale);
    flip ^= 1;
  }
}

}  // namespace ps
