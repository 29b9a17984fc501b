/* Several numbers of a row at once: what elementwise kernels load and store in one instruction where rows are aligned for it. */
#pragma once

#include <type_traits>

#include "../common.cuh"

namespace ps {

constexpr int kPackBytes = 16; /* the widest load */

template <typename T, int N>
struct alignas(sizeof(T) * N < kPackBytes ? sizeof(T) * N : kPackBytes) Pack {
  T value[N];
};

/* N numbers from p on, widened. */
template <int N, typename T>
__device__ __forceinline__ Pack<float, N> load_pack(const T *p) {
  const Pack<T, N> stored = *reinterpret_cast<const Pack<T, N> *>(p);
  Pack<float, N> out;
#pragma unroll
  for (int i = 0; i < N; i++) out.value[i] = to_float(stored.value[i]);
  return out;
}

template <int N>
__device__ __forceinline__ void store_pack(float *p, const Pack<float, N> &numbers) {
  *reinterpret_cast<Pack<float, N> *>(p) = numbers;
}

constexpr int64_t number_bytes(int32_t dtype) { return dtype == PS_F16 || dtype == PS_BF16 ? 2 : 4; }

/* Whether every row lets itself be read in packs of n numbers. */
inline bool packs(const void *data, int64_t stride, int64_t bytes_a_number, int64_t n) {
  const int64_t bytes = n * bytes_a_number < kPackBytes ? n * bytes_a_number : kPackBytes;
  return reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(bytes) == 0 && stride * bytes_a_number % bytes == 0;
}
template <typename T>
bool packs(const Rows<T> &rows, int64_t n) {
  return packs(rows.data, rows.stride, sizeof(T), n);
}
inline bool packs(const Typed &rows, int64_t n) { return packs(rows.data, rows.stride, number_bytes(rows.dtype), n); }
/* The same of a single row, whose stride says nothing. */
inline bool packs_row(const Typed &row, int64_t n) { return packs(row.data, 0, number_bytes(row.dtype), n); }

/* Calls body with N, or with 1 when the rows are not fit for packs: both as a constant that a template can take. */
template <int N, typename Body>
void with_pack(bool fit, const Body &body) {
  if (fit) body(std::integral_constant<int, N>{});
  else body(std::integral_constant<int, 1>{});
}

/* Rows cut into chunks of one pack a thread: block x handles chunk x % chunks of row x / chunks. Blocks lie in grid.x only, because
 * grid.y ends at 65535. */
constexpr int kRowThreads = 256;

inline dim3 chunk_grid(int64_t rows, int64_t width, int pack) {
  return dim3(static_cast<unsigned>(rows * ceil_div(width, int64_t(kRowThreads) * pack)));
}

struct Place {
  int64_t row, column; /* column may lie past the row */
};

template <int N>
__device__ __forceinline__ Place place_of_thread(int64_t width) {
  const int chunks = static_cast<int>((width + kRowThreads * N - 1) / (kRowThreads * N));
  const int row = static_cast<int>(blockIdx.x) / chunks, chunk = static_cast<int>(blockIdx.x) % chunks;
  return {row, (int64_t(chunk) * kRowThreads + threadIdx.x) * N};
}

}  // namespace ps
