/* What both builds share of sampling. Both use the same operations in the same order, none of which a compiler may join or split, so
 * they draw the same token from the same bits. Weights are integers, whose sums do not depend on the order of adding. */
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "params.h"

namespace ps {
namespace sampling {

constexpr int64_t kMostTokens = int64_t(1) << 23; /* whose weights sum to less than 2^64 */
constexpr int kPasses = 3;                        /* over the 32 bits of a key, the highest first */
constexpr int kBins = 2048;                       /* a pass */

/* Bits below those that a pass has looked at; before the first pass all 32. */
PS_HOST_DEVICE static inline constexpr int shift_after(int passes) { return passes == 0 ? 32 : passes == 1 ? 21 : passes == 2 ? 10 : 0; }
/* Which bin of a pass a key falls in. */
PS_HOST_DEVICE static inline uint32_t bin_of(uint32_t key, int pass) {
  return key >> shift_after(pass + 1) & ((1u << (shift_after(pass) - shift_after(pass + 1))) - 1);
}
/* Whether two keys agree in all bits that earlier passes have looked at. */
PS_HOST_DEVICE static inline bool agree(uint32_t a, uint32_t b, int pass) { return pass == 0 || (a ^ b) >> shift_after(pass) == 0; }

/* Larger numbers have larger keys; -0 counts as +0. No NaN comes here. */
PS_HOST_DEVICE static inline uint32_t key_of(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  return bits == 0x80000000u ? bits : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
PS_HOST_DEVICE static inline float number_of(uint32_t key) {
  const uint32_t bits = key & 0x80000000u ? key ^ 0x80000000u : ~key;
  float number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

/* Larger for better tokens: by logit, equal ones to the lower id. */
PS_HOST_DEVICE static inline uint64_t rank_of(float logit, int64_t id) {
  return uint64_t(key_of(logit)) << 32 | static_cast<uint32_t>(~static_cast<uint32_t>(id));
}
PS_HOST_DEVICE static inline uint32_t key_of_rank(uint64_t rank) { return static_cast<uint32_t>(rank >> 32); }
PS_HOST_DEVICE static inline int32_t id_of_rank(uint64_t rank) { return static_cast<int32_t>(~static_cast<uint32_t>(rank)); }
constexpr uint64_t kFiniteRank = uint64_t(0x00800000u) << 32; /* no token above -Infinity ranks below */
constexpr uint32_t kInfinityKey = 0xff800000u;

PS_HOST_DEVICE static inline float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

/* exp(x) * 2^40, rounded down, for x <= 0; exactly 2^40 for 0. The polynomial is Cephes' (Stephen Moshier). */
PS_HOST_DEVICE static inline uint64_t exp_fixed(float x) {
  if (!(x > -28.f)) return 0; /* below 1 */
  const float shifted = fused(x, 1.44269504f, 12582912.f); /* 1.5 * 2^23: rounds to a whole number */
  const float whole = shifted - 12582912.f;
  const float rest = fused(whole, 2.12194440e-4f, fused(whole, -0.693359375f, x));
  float y = fused(1.9875691500e-4f, rest, 1.3981999507e-3f);
  y = fused(y, rest, 8.3334519073e-3f);
  y = fused(y, rest, 4.1665795894e-2f);
  y = fused(y, rest, 1.6666665459e-1f);
  y = fused(y, rest, 5.0000001201e-1f);
  y = fused(y, rest * rest, rest) + 1.f;
  const uint32_t bits = static_cast<uint32_t>(127 + 40 + static_cast<int32_t>(whole)) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return static_cast<uint64_t>(y * scale); /* times a power of two is exact */
}

/* What a call asks of one row, and its largest logit. */
struct Rules {
  float temperature, top_p, min_p, draw, max;
  int64_t top_k; /* 0 for all */

  PS_HOST_DEVICE Rules(const float *settings, float draw, int64_t width)
      : temperature(settings[0]),
        top_p(settings[1]),
        min_p(settings[2]),
        draw(draw),
        max(0),
        top_k(!(settings[3] >= 1)                       ? 0
              : settings[3] < static_cast<float>(width) ? static_cast<int64_t>(settings[3])
                                                        : width) {}

  PS_HOST_DEVICE bool filters() const { return top_k > 0 || top_p < 1 || min_p > 0; }
  /* Weight before temperature, and at it. */
  PS_HOST_DEVICE uint64_t mass(float logit) const { return exp_fixed(logit - max); }
  PS_HOST_DEVICE uint64_t weight(float logit) const { return exp_fixed((logit - max) / temperature); }

  /* The best ranked tokens are kept up to the first whose running mass exceeds this, of tokens that sum to `total`. */
  PS_HOST_DEVICE uint64_t mass_target(uint64_t total) const {
    uint64_t below;
    const uint64_t whole = share(total, top_p, &below);
    return below == 0 && whole > 0 ? whole - 1 : whole;
  }
  /* The first token whose running weight exceeds this is drawn. */
  PS_HOST_DEVICE uint64_t draw_target(uint64_t total) const {
    uint64_t below;
    return share(total, draw, &below);
  }
  /* The lowest rank that min-p keeps; `best` always stays. */
  PS_HOST_DEVICE uint64_t lowest_rank(uint64_t best) const {
    if (!(min_p > 0)) return 0;
    const double limit = static_cast<double>(max) + log(static_cast<double>(min_p));
    const float rounded = static_cast<float>(limit);
    const uint64_t key = key_of(rounded) + (static_cast<double>(rounded) < limit ? 1u : 0u);
    return key << 32 < best ? key << 32 : best;
  }

 private:
  /* fraction * total without what stands behind the point, which goes to `below`; less than total. */
  PS_HOST_DEVICE static uint64_t share(uint64_t total, float fraction, uint64_t *below) {
    *below = 1;
    if (!(fraction > 0)) return 0;
    if (fraction >= 1) return total - 1;
    const uint64_t parts = static_cast<uint64_t>(fraction * 18446744073709551616.f); /* of 2^64 */
    *below = parts * total;
#if defined(__CUDA_ARCH__)
    return __umul64hi(parts, total);
#else
    return static_cast<uint64_t>(static_cast<unsigned __int128>(parts) * total >> 64);
#endif
  }
};

}  // namespace sampling
}  // namespace ps
