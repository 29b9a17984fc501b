/* append_rotated as the operations that it joins, for where one kernel of its own does not pay. */
#pragma once

#include "backend.h"

namespace ps {

inline void append_rotated_parts(Backend &backend, const AppendRotatedParams &p) {
  const ps_cache_desc &desc = p.append.cache.desc;
  const int64_t tokens = p.append.tokens, d = desc.head_dim;
  auto norm_and_rotate = [&](const Rows<float> &x, const Typed &weight, const Rows<const float> &table, int64_t heads) {
    if (weight.data != nullptr) rms_norm(backend, {{x.data, x.stride}, weight, x, tokens, heads, d, p.eps});
    rope(backend, {x, table, tokens, heads, d, p.pairs});
  };
  norm_and_rotate(p.q, p.q_norm, p.q_table, desc.num_query_heads);
  norm_and_rotate(p.k, p.k_norm, p.k_table, desc.num_kv_heads);
  append_kv(backend, p.append);
}

}  // namespace ps
