/* The answer of a row whose splits are the blocks of a cluster: each passes its parts to the blocks that write them, which spares three trips
 * to memory. These trips are long where the weights of the next product are under way. */
#pragma once

#include "cluster.cuh"
#include "decode_attention.cuh"

namespace ps {

/* What a block receives: parts of the numbers that it writes, from every split. Nothing else may lie here while another block attends. */
struct Inbox {
  float4 *sums;  /* [splits, share] */
  float2 *parts; /* the same: maximum (base 2) and total */
  int32_t share; /* fours of numbers per block */

  __device__ __forceinline__ Inbox(unsigned char *memory, const RowPages &row, int head_dim)
      : sums(reinterpret_cast<float4 *>(memory)), share((row.heads * head_dim / 4 + row.splits - 1) / row.splits) {
    parts = reinterpret_cast<float2 *>(sums + row.splits * share);
  }

  /* Most bytes, of so many heads and splits. */
  static int64_t bytes(int64_t heads, int64_t head_dim, int64_t splits) {
    return (heads * head_dim / 4 + splits) * int64_t(sizeof(float4) + sizeof(float2));
  }

  /* Passes on numbers 4 i to 4 i + 3 of [heads, d] of this block's split, as merge_warps emits them. All blocks of the cluster have begun. */
  __device__ __forceinline__ void pass(const RowPages &row, int i, const float4 &sum, float maximum, float total) const {
    const uint32_t target = i / share;
    const int place = row.split * share + i % share;
    write_remote(sums + place, target, uint4{__float_as_uint(sum.x), __float_as_uint(sum.y), __float_as_uint(sum.z), __float_as_uint(sum.w)});
    write_remote(parts + place, target, uint2{__float_as_uint(maximum), __float_as_uint(total)});
  }

  /* Writes this block's share of the answer, in the order and arithmetic of join_row. After a barrier of the cluster;
   * by the first kDecodeThreads threads of the block. */
  __device__ __forceinline__ void write(const DecodeLaunch &launch, const RowPages &row, int fours) const {
    const int first = row.split * share;
    for (int own = threadIdx.x; own < share && first + own < fours; own += kDecodeThreads) {
      const float4 answer =
          join_numbers<8>(row.splits, [&](int split) { return parts[split * share + own]; }, [&](int split) { return sums[split * share + own]; });
      store_answer(launch, row, first + own, answer);
    }
  }
};

}  // namespace ps
