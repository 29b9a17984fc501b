/* The matrix-vector kernel for 16-bit weights in aligned rows: 1 to 8 tokens on tensor cores, every weight read once. Bound by
 * 2 * outputs * inputs bytes.
 *
 * One or two blocks a multiprocessor walk over tiles of 16 * Tiles outputs; the warps of a block share out the inputs in chunks of 32.
 * Each lane copies its own 16-byte pieces of weights and of x into its own slots of a ring in shared memory, kDepth chunks ahead and
 * across tiles, so that some 50 KiB a block are always under way and no thread waits for another but once a tile.
 *
 * A lane holds 8 consecutive inputs where the instruction wants pairs 2t and 2t + 8; weights and x are permuted alike, so the sum is
 * the same. x is split into 16-bit parts that keep all (bf16) or 22 (f16) of its bits. Tensor cores round sums down, so each chunk
 * starts from zero and is added in f32. */
#pragma once

#include "matvec.cuh"
#include "mma.cuh"

namespace ps {

constexpr int kStreamWarps = 8, kStreamThreads = kStreamWarps * kWarp;
constexpr int kStreamBlocks = 2; /* a multiprocessor: while one stores a tile, the other reads on, or the next product fills its ring */
constexpr int kTileOutputs = 16; /* rows of one instruction */
constexpr int kChunk = 32;       /* inputs: 8 a lane, two instructions */
constexpr int kSlotBytes = 16;

template <typename W>
constexpr int kParts = std::is_same<W, bf16>::value ? 3 : 2;

template <int Tiles>
constexpr int kDepth = Tiles == 1 ? 6 : Tiles == 2 ? 4 : 3;

constexpr int64_t stream_shared_bytes(int tiles, int depth, int64_t tokens) {
  return int64_t(depth) * 2 * tiles * kStreamThreads * kSlotBytes + int64_t(depth) * 2 * kStreamWarps * 4 * tokens * kSlotBytes +
         kStreamWarps * tokens * kTileOutputs * tiles * int64_t(sizeof(float));
}

/* Volatile, so that the compiler keeps reads of a slot before the copy that fills it again. */
__device__ __forceinline__ uint4 read_slot(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}
__device__ __forceinline__ void write_slot(uint32_t address, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w));
}

/* Two numbers cut to 16 bits, towards zero: what is left is then exact, and a finite number stays finite. */
__device__ __forceinline__ uint32_t cut(bf16, float first, float second) {
  uint32_t out;
  asm("cvt.rz.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(second), "f"(first));
  return out;
}
__device__ __forceinline__ uint32_t cut(f16, float first, float second) {
  uint32_t out;
  asm("cvt.rz.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(second), "f"(first));
  return out;
}
__device__ __forceinline__ float2 widen(bf16, uint32_t pair) { return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)}; }
__device__ __forceinline__ float2 widen(f16, uint32_t pair) { return __half22float2(reinterpret_cast<const __half2 &>(pair)); }

/* x as a sum of parts, largest first. Infinity and NaN stand in the first part and leave nothing. */
template <typename W>
__device__ __forceinline__ void split_x(const float (&x)[8], uint32_t (&parts)[kParts<W>][4]) {
#pragma unroll
  for (int pair = 0; pair < 4; pair++) {
    float first = x[2 * pair], second = x[2 * pair + 1];
#pragma unroll
    for (int part = 0; part < kParts<W>; part++) {
      parts[part][pair] = cut(W{}, first, second);
      const float2 kept = widen(W{}, parts[part][pair]);
      first -= kept.x;
      second -= kept.y;
      first = first == first ? first : 0.f;
      second = second == second ? second : 0.f;
    }
  }
}

/* f16 holds few exponents: scales the 32 numbers of a token to a maximum in [2^14, 2^15) and returns the factor that undoes it. */
__device__ __forceinline__ float scale_x(float (&x)[8]) {
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < 8; i++) largest = max(largest, __float_as_uint(x[i]) & 0x7fffffffu);
  largest = max(largest, __shfl_xor_sync(kAllLanes, largest, 1));
  largest = max(largest, __shfl_xor_sync(kAllLanes, largest, 2));
  const uint32_t exponent = max(largest >> 23, 28u); /* from here on both factors are normal numbers */
  const float scale = __uint_as_float((268 - exponent) << 23);
#pragma unroll
  for (int i = 0; i < 8; i++) x[i] *= scale;
  return __uint_as_float((exponent - 14) << 23);
}

/* sum += weights * x over one chunk. weights: of every tile this lane's row g, then row g + 8. numbers: 8 of x of token g. */
template <typename W, int Tiles>
__device__ __forceinline__ void multiply_chunk(const uint4 (&weights)[2 * Tiles], const uint4 (&numbers)[2], float (&sum)[Tiles][4]) {
  float x[8];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    x[4 * half] = __uint_as_float(numbers[half].x), x[4 * half + 1] = __uint_as_float(numbers[half].y);
    x[4 * half + 2] = __uint_as_float(numbers[half].z), x[4 * half + 3] = __uint_as_float(numbers[half].w);
  }
  float2 undo{1.f, 1.f}; /* of columns 2t and 2t + 1 */
  if (std::is_same<W, f16>::value) {
    const float own = scale_x(x);
    const int lane_of_column = threadIdx.x % 4 * 8;
    undo = {__shfl_sync(kAllLanes, own, lane_of_column), __shfl_sync(kAllLanes, own, lane_of_column + 4)};
  }
  uint32_t parts[kParts<W>][4];
  split_x<W>(x, parts);
  float chunk[2][Tiles][4] = {}; /* of each instruction step on its own: shorter chains */
#pragma unroll
  for (int part = kParts<W> - 1; part >= 0; part--) {
#pragma unroll
    for (int tile = 0; tile < Tiles; tile++) {
      const uint4 upper = weights[2 * tile], lower = weights[2 * tile + 1];
      multiply_add<W>(chunk[0][tile], {upper.x, lower.x, upper.y, lower.y}, parts[part][0], parts[part][1]);
      multiply_add<W>(chunk[1][tile], {upper.z, lower.z, upper.w, lower.w}, parts[part][2], parts[part][3]);
    }
  }
#pragma unroll
  for (int tile = 0; tile < Tiles; tile++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      sum[tile][i] = fmaf(chunk[0][tile][i] + chunk[1][tile][i], i % 2 == 0 ? undo.x : undo.y, sum[tile][i]);
    }
  }
}

/* The ring of one lane, and where in the product the copies into it stand. */
template <typename W, int Tiles>
struct Stream {
  const MatmulParams &p;
  uint32_t weight_slots, x_slots; /* shared addresses */
  int chunks, tiles, tile, chunk;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;

  __device__ __forceinline__ Stream(const MatmulParams &params, uint32_t shared)
      : p(params),
        weight_slots(shared + threadIdx.x * kSlotBytes),
        x_slots(shared + kDepth<Tiles> * 2 * Tiles * kStreamThreads * kSlotBytes),
        chunks(static_cast<int>((params.inputs + kChunk - 1) / kChunk)),
        tiles(static_cast<int>((params.outputs + kTileOutputs * Tiles - 1) / (kTileOutputs * Tiles))),
        tile(blockIdx.x),
        chunk(threadIdx.x / kWarp) {
    x_slots += (warp * lanes_with_x() + lane) * kSlotBytes;
  }

  __device__ __forceinline__ int lanes_with_x() const { return 4 * static_cast<int>(p.tokens); }
  __device__ __forceinline__ bool active() const { return tile < tiles && chunk < chunks; }
  __device__ __forceinline__ int first_input() const { return chunk * kChunk + lane % 4 * 8; }
  __device__ __forceinline__ uint32_t weight_slot(int stage, int row) const {
    return weight_slots + (stage * 2 * Tiles + row) * kStreamThreads * kSlotBytes;
  }
  __device__ __forceinline__ uint32_t x_slot(int stage, int half) const {
    return x_slots + (stage * 2 + half) * kStreamWarps * lanes_with_x() * kSlotBytes;
  }

  __device__ __forceinline__ void advance() {
    chunk += kStreamWarps;
    if (chunk < chunks) return;
    chunk = warp;
    tile += gridDim.x;
  }

  /* Rows past the last are read as the last one; their sums are not stored. Inputs past the last become zeros. */
  __device__ __forceinline__ void copy_weights(int stage) const {
    const int k = first_input();
    const bool valid = k < p.inputs;
    const W *weight = static_cast<const W *>(p.weight.data) + (valid ? k : 0);
    const int64_t first = int64_t(tile) * kTileOutputs * Tiles + lane / 4, last = p.outputs - 1;
#pragma unroll
    for (int row = 0; row < 2 * Tiles; row++) {
      const int64_t n = first + row * 8;
      copy_async(weight_slot(stage, row), weight + (n < last ? n : last) * p.weight.stride, valid);
    }
  }

  __device__ __forceinline__ void copy_x(int stage) const {
    if (lane >= lanes_with_x()) return;
    const int k = first_input();
    const bool valid = k < p.inputs;
    const float *x = p.x.row(lane / 4) + (valid ? k : 0);
    copy_async(x_slot(stage, 0), x, valid);
    copy_async(x_slot(stage, 1), x + 4, valid);
  }

  /* 16 bytes of x, zeros where there are none. */
  __device__ __forceinline__ uint4 load_x(int half) const {
    const int k = first_input();
    if (lane >= lanes_with_x() || !active() || k >= p.inputs) return uint4{};
    return *reinterpret_cast<const uint4 *>(p.x.row(lane / 4) + k + 4 * half);
  }
};

/* Adds up what the warps found for a tile, always in the same order, and stores it. partial [warps, tokens, 16 * Tiles]. */
template <int Tiles>
__device__ __forceinline__ void store_tile(const MatmulParams &p, float *partial, const float (&sum)[Tiles][4], int tile) {
  constexpr int kOutputs = kTileOutputs * Tiles;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, tokens = static_cast<int>(p.tokens);
  __syncthreads(); /* the tile before has been read */
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int token = lane % 4 * 2 + i % 2;
    if (token >= tokens) continue;
#pragma unroll
    for (int t = 0; t < Tiles; t++) partial[(warp * tokens + token) * kOutputs + t * kTileOutputs + lane / 4 + i / 2 * 8] = sum[t][i];
  }
  __syncthreads();
  for (int place = threadIdx.x; place < tokens * kOutputs; place += kStreamThreads) {
    const int token = place / kOutputs;
    const int64_t n = int64_t(tile) * kOutputs + place % kOutputs;
    if (n >= p.outputs) continue;
    float total = 0;
#pragma unroll
    for (int w = 0; w < kStreamWarps; w++) total += partial[w * tokens * kOutputs + place];
    p.out.row(token)[n] = total + bias_at(p.bias, n);
  }
}

/* No operation writes 16-bit numbers to a buffer, so the weights are there before the previous kernel is done: the ring is filled
 * with them while it still runs. x may be its result. */
template <typename W, int Tiles>
__global__ void __launch_bounds__(kStreamThreads, kStreamBlocks) stream_kernel(const __grid_constant__ MatmulParams p) {
  static_assert(sizeof(W) == 2, "A slot holds the 8 inputs that a lane of the instruction takes, and only 16-bit weights may be read early");
  constexpr int kStages = kDepth<Tiles>;
  extern __shared__ uint4 shared[];
  let_next_start();
  Stream<W, Tiles> stream(p, shared_address(shared));
  float *partial = reinterpret_cast<float *>(shared + kStages * 2 * (Tiles * kStreamThreads + kStreamWarps * stream.lanes_with_x()));
  const int start_tile = stream.tile, start_chunk = stream.chunk;
#pragma unroll
  for (int stage = 0; stage < kStages; stage++) {
    if (stream.active()) stream.copy_weights(stage);
    copy_commit();
    stream.advance();
  }
  wait_for_previous();
  stream.tile = start_tile, stream.chunk = start_chunk;
  uint4 x_ahead[kStages][2]; /* by way of registers: as copies they would come after all weights of the ring */
#pragma unroll
  for (int stage = 0; stage < kStages; stage++) {
    x_ahead[stage][0] = stream.load_x(0);
    x_ahead[stage][1] = stream.load_x(1);
    stream.advance();
  }
  const bool has_x = stream.lane < stream.lanes_with_x();
#pragma unroll
  for (int stage = 0; stage < kStages; stage++) {
    if (has_x) write_slot(stream.x_slot(stage, 0), x_ahead[stage][0]);
    if (has_x) write_slot(stream.x_slot(stage, 1), x_ahead[stage][1]);
  }
  int stage = 0;
  for (int tile = start_tile; tile < stream.tiles; tile += gridDim.x) {
    float sum[Tiles][4] = {};
    for (int chunk = start_chunk; chunk < stream.chunks; chunk += kStreamWarps) {
      copy_wait<kStages - 1>();
      uint4 weights[2 * Tiles], numbers[2] = {};
#pragma unroll
      for (int row = 0; row < 2 * Tiles; row++) weights[row] = read_slot(stream.weight_slot(stage, row));
      if (has_x) numbers[0] = read_slot(stream.x_slot(stage, 0));
      if (has_x) numbers[1] = read_slot(stream.x_slot(stage, 1));
      if (stream.active()) {
        stream.copy_weights(stage);
        stream.copy_x(stage);
      }
      copy_commit();
      stream.advance();
      stage = stage + 1 == kStages ? 0 : stage + 1;
      multiply_chunk<W, Tiles>(weights, numbers, sum);
    }
    store_tile<Tiles>(p, partial, sum, tile);
  }
}

}  // namespace ps
