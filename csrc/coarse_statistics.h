/* Coarse copies of a page's statistics, which are scored first: means in 8 bits and variances in 2 (docs/notes/statistics.md says why).
 *
 * Both are made from the rows as stored. A row has two bf16 scales in one word, the mean's in the low half:
 *   mean      scale = largest |mean| / 127; a signed byte is mean / scale rounded to nearest, ties to even
 *   variance  scale = largest variance; variance_code(variance / scale) stands for a 255th of a number of kVarianceLevels
 * A row with a number that is not finite has NaN as its scale, and its page is always scored exactly.
 *
 * A row is d bytes of means, then the codes, if the cache stores variances. Four lanes t read a row together, in pieces of coarse_piece(d)
 * bytes: piece 4 i + t belongs to lane t. The codes of a lane's dimensions, in their order, make its words (4, 8 or 16 bytes): the dimension at
 * place n has bits 4 (n % 4) + 2 (n / 4 % 2) of 16-bit part n / 8. */
#pragma once

#include "params.h"

namespace ps {

PS_HOST_DEVICE constexpr uint32_t variance_code(float share) { return (share > 0.0511f) + (share > 0.2576f) + (share > 0.69f); }
constexpr uint32_t kVarianceLevels = 0xff702002; /* 2, 32, 112 and 255, by code */

PS_HOST_DEVICE constexpr int coarse_piece(int head_dim) { return head_dim % 64 == 0 ? 16 : 8; }
/* Bytes of the codes that one of the four lanes reads. */
PS_HOST_DEVICE constexpr int coarse_word_bytes(int head_dim) { return head_dim <= 64 ? 4 : head_dim <= 128 ? 8 : 16; }
PS_HOST_DEVICE constexpr int coarse_row_bytes(int head_dim, bool with_variance) {
  return head_dim + (with_variance ? 4 * coarse_word_bytes(head_dim) : 0);
}
/* The dimension at place n of lane t. */
PS_HOST_DEVICE constexpr int coarse_dim(int head_dim, int t, int n) {
  const int piece = coarse_piece(head_dim);
  return (n / piece * 4 + t) * piece + n % piece;
}

}  // namespace ps
