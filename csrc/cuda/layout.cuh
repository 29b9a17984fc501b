/* Where the numbers of a page lie on the GPU. Pools are cut into [layers, Hk, pages, one page].
 *
 * Keys and values of 16 bits: a page is [d / W] blocks of [S, W], W = 64 dimensions where d allows, else 32 or 16. Eight rows of a
 * block are one unit of 16 W bytes, in which the 16-byte chunks of a row are permuted by an exclusive or with the row number. That
 * is the pattern that ldmatrix reads without bank conflicts and that wgmma calls 128-byte (64, 32) swizzle, so units are copied to
 * shared memory as they are. Two neighbouring numbers of 8 bits lie as one of 16 would in heads of half the size, where that is a
 * multiple of 16. Other numbers of 8 bits and those of 32 lie plainly, [S, d]. Statistics are rows of d numbers. */
#pragma once

#include "../params.h"

namespace ps {

/* Dimensions of a block. */
PS_HOST_DEVICE constexpr int block_width(int head_dim) { return head_dim % 64 == 0 ? 64 : head_dim % 32 == 0 ? 32 : 16; }

/* Place of a number in a block of rows of W 16-bit numbers, in elements: bits 4.. of the byte offset are xored with bits 7.. */
PS_HOST_DEVICE constexpr int swizzled(int width, int row, int column) {
  return (row * width + column) ^ (((row * width) >> 6 & (width / 8 - 1)) << 3);
}

struct Layout {
  int64_t pages, heads, head_dim, page_size;

  PS_HOST_DEVICE explicit Layout(const ps_cache_desc &desc)
      : pages(desc.num_pages), heads(desc.num_kv_heads), head_dim(desc.head_dim), page_size(desc.page_size) {}

  /* Index of a page's single number (std). */
  PS_HOST_DEVICE int64_t page(int64_t layer, int64_t head, int64_t physical) const { return (layer * heads + head) * pages + physical; }
  /* First element of a page's d numbers (mean, variance, min, max). */
  PS_HOST_DEVICE int64_t vector(int64_t layer, int64_t head, int64_t physical) const { return page(layer, head, physical) * head_dim; }
  /* First element of a page's S * d numbers (keys, values). */
  PS_HOST_DEVICE int64_t tokens(int64_t layer, int64_t head, int64_t physical) const { return vector(layer, head, physical) * page_size; }
  /* First of a page's S numbers (scales of keys and values). */
  PS_HOST_DEVICE int64_t token(int64_t layer, int64_t head, int64_t physical) const { return page(layer, head, physical) * page_size; }
  /* Element inside a page, of keys and values alike; `number_bytes` of the dtype. */
  PS_HOST_DEVICE int64_t inside(int number_bytes, int64_t place, int64_t dim) const {
    if (number_bytes == 4 || (number_bytes == 1 && head_dim % 32 != 0)) return place * head_dim + dim;
    if (number_bytes == 1) return 2 * block_element(head_dim / 2, place, dim / 2) + dim % 2;
    return block_element(head_dim, place, dim);
  }

 private:
  PS_HOST_DEVICE int64_t block_element(int64_t row_numbers, int64_t place, int64_t dim) const {
    const int width = block_width(static_cast<int>(row_numbers)), block = static_cast<int>(dim) / width;
    return block * page_size * width + swizzled(width, static_cast<int>(place), static_cast<int>(dim) % width);
  }
};

}  // namespace ps
