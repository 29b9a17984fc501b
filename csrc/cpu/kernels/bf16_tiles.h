/* The innermost block of a product on AMX: 32 rows times 32 columns of f32 in four tile registers, from operands of bf16.
 *
 * Operands lie in memory in steps of 32 inputs. A step of the left operand is one or two tiles [16 rows, 32 inputs], one of the right
 * operand two tiles [16 pairs of inputs, 16 columns, 2]: an instruction multiplies two tiles of 1 KB that are read front to back. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

constexpr int kTileSide = 16;                  /* rows of every tile; columns of f32, or of pairs of bf16 */
constexpr int kStepInputs = 32;
constexpr int kTileNumbers = kTileSide * 32;   /* of bf16 */
constexpr int kBlockSide = 2 * kTileSide;      /* rows and columns of a block */
constexpr int kStepNumbers = 2 * kTileNumbers; /* of a step of two tiles */

/* Makes the tile registers of this thread usable while it lives: all are 16 rows of 64 bytes. Without a release the system would save
 * them at every switch of threads. */
class TileRegisters {
 public:
  TileRegisters() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shapes;
    asm volatile("" : : "r"(&shapes) : "memory"); /* the intrinsic names only the first bytes as read */
    _tile_loadconfig(&shapes);
  }
  ~TileRegisters() { _tile_release(); }
  TileRegisters(const TileRegisters &) = delete;
  TileRegisters &operator=(const TileRegisters &) = delete;
};

/* out = a * b + from over `steps` steps; out and from are [RowTiles * 16, 32] without gaps, from nullptr stands for zeros. */
template <int RowTiles>
PS_INLINE void multiply_block(int64_t steps, const bf16 *a, const bf16 *b, const float *from, float *out) {
  constexpr int kRowBytes = kBlockSide * int(sizeof(float)), kLower = kTileSide * kBlockSide;
  asm volatile("" : : : "memory"); /* the intrinsics do not say which memory they read */
  if (from == nullptr) {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (RowTiles == 2) {
      _tile_zero(2);
      _tile_zero(3);
    }
  } else {
    _tile_loadd(0, from, kRowBytes);
    _tile_loadd(1, from + kTileSide, kRowBytes);
    if constexpr (RowTiles == 2) {
      _tile_loadd(2, from + kLower, kRowBytes);
      _tile_loadd(3, from + kLower + kTileSide, kRowBytes);
    }
  }
  for (int64_t step = 0; step < steps; step++) {
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_loadd(7, b + kTileNumbers, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (RowTiles == 2) {
      _tile_loadd(5, a + kTileNumbers, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    a += RowTiles * kTileNumbers;
    b += kStepNumbers;
  }
  _tile_stored(0, out, kRowBytes);
  _tile_stored(1, out + kTileSide, kRowBytes);
  if constexpr (RowTiles == 2) {
    _tile_stored(2, out + kLower, kRowBytes);
    _tile_stored(3, out + kLower + kTileSide, kRowBytes);
  }
}

/* 32 numbers as bf16, rounded to nearest. */
PS_INLINE __m512i narrow(Vec first, Vec second) { return (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first); }

/* Numbers 0, 16, 1, 17, ... of 32: the first half paired with the second. */
PS_INLINE __m512i pair_halves(__m512i numbers) {
  alignas(64) static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(order), numbers);
}

/* 32 numbers of which the first `count` are loaded; the others are 0. */
PS_INLINE void load_row(const float *x, int64_t count, Vec *first, Vec *second) {
  if (count >= kStepInputs) {
    *first = load(x);
    *second = load(x + kLanes);
    return;
  }
  const uint32_t present = count > 0 ? (1u << count) - 1 : 0;
  *first = (Vec)_mm512_maskz_loadu_ps(static_cast<__mmask16>(present), x);
  *second = (Vec)_mm512_maskz_loadu_ps(static_cast<__mmask16>(present >> kLanes), x + (present >> kLanes ? kLanes : 0));
}

/* What rounding 32 numbers to bf16 leaves, as bf16: together they have 16 bits. */
PS_INLINE __m512i narrow_rest(Vec first, Vec second, __m512i rounded) {
  const Vec low = widen_bf16((VecHalf)_mm512_castsi512_si256(rounded)), high = widen_bf16((VecHalf)_mm512_extracti64x4_epi64(rounded, 1));
  return narrow(first - low, second - high);
}

}  // namespace PS_ISA
}  // namespace ps
