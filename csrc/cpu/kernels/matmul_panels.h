/* Products of many tokens: panels of kTileColumns weight rows are widened to f32 and transposed once, then multiplied with all tokens by the
 * register tile of microkernel.h: bound by arithmetic. */
#pragma once

#include "microkernel.h"

namespace ps {
namespace PS_ISA {

constexpr int64_t kPanelDepth = 512; /* inputs a panel covers: kPanelDepth * kTileColumns floats stay in the first cache */

/* One panel's columns, outputs [n, n + kTileColumns), for all tokens. pack(n, columns, k, depth, panel) writes weight rows [n, n + columns) at
 * inputs [k, k + depth) to panel [depth, kTileColumns], with zeros for missing columns. A column range cut off by the end of the outputs goes
 * through `edge`. */
template <typename Pack>
static void multiply_panel(const MatmulParams &p, const Pack &pack, int64_t n, float *panel, float *edge) {
  const int64_t columns = p.outputs - n < kTileColumns ? p.outputs - n : kTileColumns;
  float *out = columns == kTileColumns ? p.out.data + n : edge;
  const int64_t stride = columns == kTileColumns ? p.out.stride : kTileColumns;
  for (int64_t k = 0; k < p.inputs; k += kPanelDepth) {
    const int64_t depth = p.inputs - k < kPanelDepth ? p.inputs - k : kPanelDepth;
    pack(n, columns, k, depth, panel);
    tile_block(p.tokens, depth, p.x.data + k, p.x.stride, panel, kTileColumns, out, stride, k > 0);
  }
  if (p.bias.data == nullptr && out != edge) return;
  for (int64_t t = 0; t < p.tokens; t++) {
    for (int64_t c = 0; c < columns; c++) p.out.row(t)[n + c] = out[t * stride + c] + bias_at(p.bias, n + c);
  }
}

template <typename Pack>
static void multiply_panels(ThreadPool &pool, const MatmulParams &p, const Pack &pack) {
  const int64_t panel_floats = kPanelDepth * kTileColumns;
  pool.reserve_scratch((panel_floats + p.tokens * kTileColumns) * int64_t(sizeof(float)));
  pool.parallel_for((p.outputs + kTileColumns - 1) / kTileColumns, [&](int64_t index, int thread) {
    float *panel = static_cast<float *>(pool.scratch(thread));
    multiply_panel(p, pack, index * kTileColumns, panel, panel + panel_floats);
  });
}

}  // namespace PS_ISA
}  // namespace ps
