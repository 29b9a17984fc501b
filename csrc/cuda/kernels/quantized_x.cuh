/* x of a product with weights in blocks, rounded for tensor cores: f16, each token times a power of two, and what a sub-block of x adds to
 * the products of weights that are unpacked by halves (matmul_quantized.cuh). Bound by latency: every block of a product reads x. */
#pragma once

#include "joins.cuh"
#include "matmul_quantized.h"
#include "matvec_split.cuh"
#include "mma.cuh"
#include "quantized.cuh"

namespace ps {

constexpr int kColumnTokens = 8;     /* columns of an instruction */

/* How much of the inputs a warp copies at once: at least 1 KiB. */
template <typename F>
constexpr int kStageRegions = F::kRegionBytes >= 1024  ? 1
                              : F::kRegionBytes >= 512 ? 2
                                                       : 4;
template <typename F>
constexpr int kStageBytes = kStageRegions<F> * F::kRegionBytes;
template <typename F>
constexpr int kStageSubs = kStageRegions<F> * F::kSubs;
/* Warps of a block. Of one token, a block and one of the next product share a multiprocessor, and their registers are dealt out. Of several, wide
 * stages take fewer warps, for then more blocks fit; kMostWarps are wanted there in all. */
template <typename F, bool OneToken>
constexpr int kWarps = OneToken || kStageBytes<F> > 2304 ? 8 : 16;
template <typename F, bool OneToken>
constexpr int kThreads = kWarps<F, OneToken> * kWarp;

/* Numbers besides x that a sub-block and token has: where sums start (for either half of the inputs where scales differ), and the sum of x. */
template <typename F>
constexpr int kStarts = F::kScales == Scales::kPerHalf ? 2 : 1;
/* What the x of the last 16 inputs of a sub-block, as it is rounded, adds to the sum of x. */
template <typename F>
constexpr float kUpper = F::kLowBits == 8   ? 1.f
                         : F::kHighBits > 0 ? 16.f
                                            : 17.f;
template <typename F>
constexpr bool kHasMinimum = F::kScales == Scales::kTwo || F::kScales == Scales::kSixBits;

/* x of a product, rounded for tensor cores; in shared memory, or, of many tokens, in that of the device. */
struct PreparedX {
  uint4 *halves; /* [sub-blocks, tokens, 4 lanes, 8] f16 */
  float *undo;   /* [tokens]: what undoes the scale of each token */
  float *starts; /* [sub-blocks, tokens, kStarts] */
  /* kTwo: sums of x, [sub-blocks, tokens] f32. kSixBits of one token: the same times -1024. kSixBits of several: sums / 32 as f16 and what rounding left,
   * [sub-blocks / 8, tokens, 4, 2, 2], the last dimension being sub-blocks 2t and 2t + 1. */
  float *sums;
};

constexpr int kXBytes = kSubBlock * 2;

/* undos: how many numbers undo scales, a multiple of 4. */
template <typename F>
PS_HOST_DEVICE constexpr int64_t prepared_bytes(int64_t subs, int64_t tokens, int64_t undos = kQuantizedTokens) {
  return subs * tokens * (kXBytes + (kStarts<F> + kHasMinimum<F>)*4) + undos * 4;
}

template <typename F>
PS_HOST_DEVICE PreparedX place_x(void *memory, int64_t subs, int64_t tokens, int64_t undos = kQuantizedTokens) {
  char *at = static_cast<char *>(memory);
  PreparedX x{};
  x.halves = reinterpret_cast<uint4 *>(at);
  x.undo = reinterpret_cast<float *>(at + subs * tokens * kXBytes);
  x.starts = x.undo + undos;
  x.sums = x.starts + subs * tokens * kStarts<F>;
  return x;
}

__device__ __forceinline__ __half2 as_halves(uint32_t bits) { return reinterpret_cast<const __half2 &>(bits); }
__device__ __forceinline__ uint32_t as_bits(__half2 halves) { return reinterpret_cast<const uint32_t &>(halves); }

/* x as f16: each token times a power of two that brings its largest number to [2^14, 2^15), for f16 holds few exponents. */
struct ScaledX {
  const MatmulParams &p;
  const bool aligned;

  __device__ __forceinline__ explicit ScaledX(const MatmulParams &params)
      : p(params), aligned(reinterpret_cast<uintptr_t>(p.x.data) % 16 == 0 && (p.tokens == 1 || p.x.stride % 4 == 0)) {}

  __device__ __forceinline__ float4 four(int64_t token, int64_t k) const {
    const float *source = p.x.row(token) + k;
    return aligned ? *reinterpret_cast<const float4 *>(source) : float4{source[0], source[1], source[2], source[3]};
  }

  static __device__ __forceinline__ uint32_t largest_of(const float4 &v) {
    return max(max(__float_as_uint(fabsf(v.x)), __float_as_uint(fabsf(v.y))), max(__float_as_uint(fabsf(v.z)), __float_as_uint(fabsf(v.w))));
  }

  /* Bits of the largest of inputs [begin, end) that the warp's threads see, the same in all lanes; that of NaN is the largest. */
  __device__ __forceinline__ uint32_t largest_bits(int64_t token, int64_t begin, int64_t end) const {
    uint32_t bits = 0;
    for (int64_t k = begin + threadIdx.x * 4; k < end; k += blockDim.x * 4) {
      bits = max(bits, largest_of(four(token, k)));
    }
    return __reduce_max_sync(kAllLanes, bits);
  }

  /* Inputs 4t on and 16 + 4t on of a sub-block as lane t takes them, in the order of unpack_row or unpack_bytes. */
  template <typename F>
  static __device__ __forceinline__ uint4 arrange(const float4 &a, const float4 &b, float factor) {
    const auto pair = [](float first, float second, float by) { return as_bits(__floats2half2_rn(first * by, second * by)); };
    if constexpr (F::kLowBits == 8) return {pair(a.x, a.y, factor), pair(a.z, a.w, factor), pair(b.x, b.y, factor), pair(b.z, b.w, factor)};
    const float upper = factor * (1 / 16.f);
    const uint32_t last[2] = {pair(b.x, b.z, upper), pair(b.y, b.w, upper)};
    if constexpr (F::kHighBits > 0) return {pair(a.x, a.z, factor), pair(a.y, a.w, factor), last[0], last[1]};
    /* a byte's upper weight comes with the lower one */
    const auto less = [factor](float first, float second, uint32_t by) {
      const float2 both = __half22float2(as_halves(by));
      return as_bits(__floats2half2_rn(fmaf(first, factor, -both.x), fmaf(second, factor, -both.y)));
    };
    return {less(a.x, a.z, last[0]), less(a.y, a.w, last[1]), last[0], last[1]};
  }

  /* The same of the sub-block from input k on; zeros past the last input. */
  template <typename F>
  __device__ __forceinline__ uint4 piece(int64_t token, int64_t k, int t, float factor) const {
    if (k >= p.inputs) return {};
    return arrange<F>(four(token, k + 4 * t), four(token, k + 16 + 4 * t), factor);
  }
};

/* Stores piece `index` of x, and what its sub-block needs besides. The four threads of a sub-block call together. */
template <typename F, bool OneToken>
__device__ __forceinline__ void store_piece(const PreparedX &x, int tokens, int64_t index, const uint4 &halves) {
  x.halves[index] = halves;
  if constexpr (F::kScales == Scales::kFloat || (F::kScales == Scales::kSixBits && OneToken)) return;
  const auto sum_of = [](uint32_t a, uint32_t b) {
    const float2 first = __half22float2(as_halves(a)), second = __half22float2(as_halves(b));
    return (first.x + first.y) + (second.x + second.y);
  };
  const unsigned lanes = 0xfu << (threadIdx.x % kWarp & 28);
  float first = sum_of(halves.x, halves.y), last = sum_of(halves.z, halves.w);
#pragma unroll
  for (int distance = 1; distance < 4; distance *= 2) {
    first += __shfl_xor_sync(lanes, first, distance);
    last += __shfl_xor_sync(lanes, last, distance);
  }
  if (threadIdx.x % 4 != 0) return;
  constexpr float kFirst = F::kLowBits == 8 ? 1024.f + 128.f : 1024.f + F::kOffset,
                  kLast = F::kLowBits == 8 ? kFirst : 1024.f + kUpper<F> * F::kOffset;
  const int64_t place = index / 4;
  if constexpr (kStarts<F> == 2) {
    x.starts[2 * place] = -kFirst * first;
    x.starts[2 * place + 1] = -kLast * last;
  } else {
    x.starts[place] = -kFirst * first - kLast * last;
  }
  const float sum = first + kUpper<F> * last;
  if constexpr (F::kScales == Scales::kTwo) {
    x.sums[place] = sum;
  } else if constexpr (F::kScales == Scales::kSixBits) {
    const int64_t sub = place / tokens, token = place % tokens;
    __half *out = reinterpret_cast<__half *>(x.sums) + ((sub / 8 * tokens + token) * 4 + sub % 8 / 2) * 4 + sub % 2;
    const float small = sum * (1 / 32.f);
    out[0] = __float2half_rn(small);
    out[2] = __float2half_rn(small - __half2float(out[0]));
  }
}

/* Copies the share's x, which a kernel before has rounded, to shared memory. Ends with a barrier. */
template <typename F>
__device__ __forceinline__ void copy_x(const PreparedX &rounded, int first_sub, int subs, int tokens, const PreparedX &x) {
  const int64_t first = int64_t(first_sub) * tokens;
  const auto copy = [](auto *to, const auto *from, int count) {
#pragma unroll 4
    for (int i = threadIdx.x; i < count; i += kThreads<F, false>) to[i] = from[i];
  };
  copy(x.undo, rounded.undo, tokens);
  copy(x.halves, rounded.halves + first * 4, subs * tokens * 4);
  if constexpr (F::kScales != Scales::kFloat) copy(x.starts, rounded.starts + first * kStarts<F>, subs * tokens * kStarts<F>);
  if constexpr (kHasMinimum<F>) copy(x.sums, rounded.sums + first, subs * tokens);
  __syncthreads();
}

/* Pieces of x of a token that a lane keeps between the search for the largest number and rounding: 12,288 inputs for 16 warps. */
constexpr int kOwnPieces = 3;

/* Inputs of a warp's own stages: pieces of four numbers and the four that lie 16 behind, 32 in a row for a warp at once. */
template <typename F, bool OneToken>
struct OwnInputs {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, pieces;
  const int64_t first_input; /* of the share */

  __device__ __forceinline__ OwnInputs(int first_stage, int own_stages)
      : pieces(own_stages * kStageSubs<F> * 4), first_input(int64_t(first_stage) * kStageSubs<F> * kSubBlock) {}

  /* The sub-block of the share, and the first input. */
  __device__ __forceinline__ int sub_of(int piece) const {
    return (warp + piece / 4 / kStageSubs<F> * kWarps<F, OneToken>)*kStageSubs<F> + piece / 4 % kStageSubs<F>;
  }
  __device__ __forceinline__ int64_t input_of(int piece) const { return first_input + sub_of(piece) * kSubBlock + piece % 4 * 4; }
};

/* Puts the x of a warp's own stages into shared memory, with scales of its own: no warp waits for another. undo [tokens]. */
template <typename F>
__device__ __forceinline__ void prepare_own_x(const MatmulParams &p, int first_stage, int own_stages, const PreparedX &x, float *undo) {
  const ScaledX source(p);
  const OwnInputs<F, false> own_inputs(first_stage, own_stages);
  const int tokens = static_cast<int>(p.tokens), lane = threadIdx.x % kWarp, pieces = own_inputs.pieces;
  const auto store = [&](int token, int piece, const uint4 &halves) {
    store_piece<F, false>(x, tokens, (int64_t(own_inputs.sub_of(piece)) * tokens + token) * 4 + piece % 4, halves);
  };
  for (int token = 0; token < tokens; token++) {
    uint32_t bits = 0;
    float4 own[kOwnPieces][2] = {};
#pragma unroll
    for (int i = 0; i < kOwnPieces; i++) {
      if (i * kWarp >= pieces) break;
      const int piece = i * kWarp + lane;
      const int64_t k = own_inputs.input_of(piece);
      if (piece >= pieces || k >= p.inputs) continue;
      own[i][0] = source.four(token, k), own[i][1] = source.four(token, k + 16);
    }
    for (int piece = kOwnPieces * kWarp + lane; piece < pieces; piece += kWarp) {
      const int64_t k = own_inputs.input_of(piece);
      if (k < p.inputs) bits = max(bits, max(ScaledX::largest_of(source.four(token, k)), ScaledX::largest_of(source.four(token, k + 16))));
    }
#pragma unroll
    for (int i = 0; i < kOwnPieces; i++) bits = max(bits, max(ScaledX::largest_of(own[i][0]), ScaledX::largest_of(own[i][1])));
    bits = __reduce_max_sync(kAllLanes, bits);
    const float scale = f16_scale(bits);
    if (lane == 0) undo[token] = undo_f16_scale(bits);
#pragma unroll
    for (int i = 0; i < kOwnPieces; i++) {
      const int piece = i * kWarp + lane;
      if (i * kWarp >= pieces) break;
      if (piece < pieces) store(token, piece, ScaledX::arrange<F>(own[i][0], own[i][1], scale));
    }
    for (int piece = kOwnPieces * kWarp + lane; piece < pieces; piece += kWarp) {
      const int64_t k = own_inputs.input_of(piece);
      store(token, piece, k < p.inputs ? ScaledX::arrange<F>(source.four(token, k), source.four(token, k + 16), scale) : uint4{});
    }
  }
  __syncwarp();
}

/* Starts and sums of x of the 8 sub-blocks of a region, whose pieces the lanes of a warp have: a product with -1024. sub: of the lane's piece. */
template <typename F>
__device__ __forceinline__ void sum_region(const PreparedX &x, int sub, const uint4 &halves) {
  constexpr uint32_t kMinus1024 = 0xe400e400u; /* two f16 */
  static_assert(F::kSubs == kColumnTokens && kStageRegions<F> == 1 && F::kOffset == 0, "A sub-block per column");
  float first[4] = {}, last[4] = {}; /* of the two halves of the inputs */
  multiply_add<f16>(first, {kMinus1024, kMinus1024, kMinus1024, kMinus1024}, halves.x, halves.y);
  multiply_add<f16>(last, {kMinus1024, kMinus1024, kMinus1024, kMinus1024}, halves.z, halves.w);
  if (threadIdx.x % kWarp >= 4) return; /* all rows have the same; these lanes have sub-blocks 2t and 2t + 1 of row 0 */
  const int own = sub + 2 * (static_cast<int>(threadIdx.x) % 4);
  *reinterpret_cast<float2 *>(x.starts + own) = {first[0] + last[0], first[1] + last[1]};
  *reinterpret_cast<float2 *>(x.sums + own) = {fmaf(kUpper<F>, last[0], first[0]), fmaf(kUpper<F>, last[1], first[1])};
}

constexpr int kScaleSubs = kWarp / 4; /* sub-blocks of one token that share a scale: 256 inputs, a piece for each lane of a warp */

/* Scales of a warp with so many stages of one token. */
template <typename F>
PS_HOST_DEVICE constexpr int scales_of(int stages) {
  return (stages * kStageSubs<F> + kScaleSubs - 1) / kScaleSubs;
}

constexpr int kVectorLoads = 2; /* pieces that a lane requests at once */

/* The same of one token, whose x is aligned to 16 bytes, times the norm's weights. undo [scales_of(own_stages)]. Returns the lane's sum of
 * squares before, with a norm. */
template <typename F>
__device__ __forceinline__ float prepare_vector_x(const MatmulParams &p, const Joins &joins, int first_stage, int own_stages, const PreparedX &x,
                                                  float *undo) {
  const OwnInputs<F, true> own_inputs(first_stage, own_stages);
  const int lane = threadIdx.x % kWarp, pieces = own_inputs.pieces, inputs = static_cast<int>(p.inputs);
  float squares = 0;
#pragma unroll 1
  for (int first = 0; first < pieces; first += kVectorLoads * kWarp) {
    float4 own[kVectorLoads][2];
    NormFactors<8> factors[kVectorLoads] = {}; /* zeros past the last input: what happens to be there could be NaN */
#pragma unroll
    for (int i = 0; i < kVectorLoads; i++) {
      const int piece = first + i * kWarp + lane, k = static_cast<int>(own_inputs.input_of(piece));
      const bool valid = piece < pieces && k < inputs;
      const float4 *const source = reinterpret_cast<const float4 *>(p.x.data + k);
      own[i][0] = valid ? source[0] : float4{}, own[i][1] = valid ? source[4] : float4{};
      if (joins.norm != nullptr && valid) factors[i].load(joins, k, 16);
    }
#pragma unroll
    for (int i = 0; i < kVectorLoads; i++) {
      if (first + i * kWarp >= pieces) break; /* alike in the whole warp */
      if (joins.norm != nullptr) squares += factors[i].apply(joins, own[i]);
      const uint32_t bits = __reduce_max_sync(kAllLanes, max(ScaledX::largest_of(own[i][0]), ScaledX::largest_of(own[i][1])));
      if (lane == 0) undo[first / kWarp + i] = undo_f16_scale(bits);
      const int piece = first + i * kWarp + lane;
      const uint4 halves = ScaledX::arrange<F>(own[i][0], own[i][1], f16_scale(bits));
      if constexpr (F::kScales == Scales::kSixBits) sum_region<F>(x, own_inputs.sub_of(piece), halves);
      if (piece < pieces) store_piece<F, true>(x, 1, int64_t(own_inputs.sub_of(piece)) * 4 + piece % 4, halves);
    }
  }
  __syncwarp();
  return squares;
}

}  // namespace ps
