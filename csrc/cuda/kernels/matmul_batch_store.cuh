/* How the sums of a block of matmul_batch.cu become its answer. */
#pragma once

#include "matmul_batch_stream.cuh"

#if defined(PS_HAS_WGMMA)

namespace ps {
namespace {

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

/* What the sums of each token are multiplied by; by kFactorThreads threads of their own, thread 0 first, when earlier kernels are done. */
template <int N>
__device__ __forceinline__ void find_factors(const BatchLaunch &launch, int32_t thread, float *factors) {
  constexpr int kSlices = kFactorThreads / N;
  __shared__ float sums[kSlices][N];
  const int32_t tokens = static_cast<int32_t>(launch.p.tokens), token = thread % N, slice = thread / N;
  if (launch.x_squares != nullptr) {
    float sum = 0;
    if (slice < kSlices && token < tokens) {
#pragma unroll 16
      for (int32_t part = slice; part < launch.x_parts; part += kSlices) sum += __ldcg(launch.x_squares + part * tokens + token);
      sums[slice][token] = sum;
    }
    wgmma::named_wait(kSquareBarrier, kFactorThreads);
  }
  if (thread < tokens) {
    float factor = launch.undo == nullptr ? 1.f : launch.undo[thread];
    if (launch.x_squares != nullptr) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kSlices; i++) sum += sums[i][thread];
      factor = 1.f / sqrtf(sum / static_cast<float>(launch.p.inputs) + launch.eps);
    }
    factors[thread] = factor;
  }
  wgmma::named_arrive(kFactorBarrier, kSumThreads + kFactorThreads);
}

/* What a thread adds four of its sums to, and what they are multiplied by for the next norm. */
struct Addend {
  Pack<float, 4> before, norm;
};

__device__ __forceinline__ Addend load_addend(const BatchLaunch &launch, int32_t token, int32_t output, bool reads) {
  Addend out{};
  if (reads) {
    const float4 four = __ldcg(reinterpret_cast<const float4 *>(launch.p.out.row(token) + output));
    out.before = {{four.x, four.y, four.z, four.w}};
  }
  out.norm = bias_pack(launch.next.norm, output, reads);
  return out;
}

/* Where a thread stores sums of a tile: four outputs of a token at a time. */
struct Quad {
  int32_t token, quad;
  const int32_t quads;
  __device__ explicit Quad(int32_t quads)
      : token(static_cast<int32_t>(threadIdx.x) / quads), quad(static_cast<int32_t>(threadIdx.x) % quads), quads(quads) {}
  __device__ void advance() {
    token += kSumThreads / quads, quad += kSumThreads % quads;
    if (quad >= quads) quad -= quads, token++;
  }
};

constexpr int kEarlyAddends = 2; /* that a thread loads before it sums */

/* Sums up the squares of a token, one number per four outputs, in their order. */
__device__ __forceinline__ void store_squares(const BatchLaunch &launch, const float *squares, int32_t quads, int32_t part) {
  const int32_t token = static_cast<int32_t>(threadIdx.x), tokens = static_cast<int32_t>(launch.p.tokens);
  if (token >= tokens) return;
  float sum = 0;
  for (int32_t quad = 0; quad < quads; quad++) sum += squares[token * quads + quad];
  if (part >= 0) launch.next.squares[part * tokens + token] = sum;
}

/* Adds up what the blocks sent, in their order, and stores it: outputs [first, first + share), or half as many behind gates. A thread takes four
 * outputs of a token at a time. width: outputs that there are, or 0 to store nothing. squares: of four sums each, where they are wanted. */
template <int N, int T, typename Ending, bool Paired>
__device__ __forceinline__ void store_share(const BatchLaunch &launch, const float *parts, const float *factors, float *squares,
                                            const Addend (&addends)[kEarlyAddends], int32_t share, int32_t first, int32_t tokens, int32_t width) {
  constexpr bool kGated = kIsGated<Ending>;
  const MatmulParams &p = launch.p;
  const int32_t outputs = static_cast<int32_t>(p.outputs / 2);
  Quad at(share / (kGated ? 8 : 4));
#pragma unroll 1
  for (int32_t i = 0; at.token < tokens; i++, at.advance()) {
    const int32_t token = at.token, place = 4 * at.quad, output = first + place;
    const float *from = parts + token * kPartStride<T> + (kGated ? place + place / 8 * 8 : place);
    const bool stores = output < width;
    const float factor = factors[token];
    Addend addend{};
    if constexpr (kAdds<Ending>) addend = i == 0 ? addends[0] : i == 1 ? addends[1] : load_addend(launch, token, output, stores);
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
    if constexpr (kAdds<Ending>) {
      float square = 0;
#pragma unroll
      for (int j = 0; j < 4; j++) sums.value[j] += addend.before.value[j], square += stores ? sums.value[j] * sums.value[j] : 0.f;
      squares[token * at.quads + at.quad] = square;
    }
    if (!stores) continue;
    store_pack<4>(p.out.row(token) + output, sums);
    if constexpr (kAdds<Ending>) {
#pragma unroll
      for (int j = 0; j < 4; j++) sums.value[j] *= addend.norm.value[j];
    }
    if constexpr (kGated || kAdds<Ending>) launch.copy.store<4>(token, output, sums);
  }
}

}  // namespace
}  // namespace ps

#endif
