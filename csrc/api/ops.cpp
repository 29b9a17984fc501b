/* Checks and dispatch of the operations without a KV cache. */
#include "../sample_rules.h"
#include "tensors.h"

using namespace ps;

namespace {

/* x of [T, n] or [T, heads, n]. */
Checked check_heads(const ps_device &device, const char *name, const ps_tensor *tensor, int64_t heads, int64_t width) {
  return tensor != nullptr && tensor->rank == 2 ? check_tensor(device, name, tensor, kF32, {-1, width})
                                                : check_tensor(device, name, tensor, kF32, {-1, heads, width});
}

/* The gate, up and out of a gated activation. */
GatedParams check_gated(const ps_device &device, const ps_tensor *gate, const ps_tensor *up, const ps_tensor *out) {
  const Checked g = check_tensor(device, "gate", gate, kF32, {-1, -1});
  const Checked u = check_tensor(device, "up", up, kF32, {g.shape[0], g.shape[1]});
  const Checked o = check_tensor(device, "out", out, kF32, {g.shape[0], g.shape[1]});
  return {g.rows<const float>(), u.rows<const float>(), o.rows<float>(), g.shape[0], g.shape[1]};
}

/* The operands of a product, with so many outputs for each number of out. */
MatmulParams check_product(const ps_device &device, const ps_tensor *x, const ps_tensor *weight, const ps_tensor *bias, const ps_tensor *out,
                           int64_t outputs_per_number) {
  const Checked w = check_tensor(device, "weight", weight, kWeights, {-1, -1});
  const Checked a = check_tensor(device, "x", x, kF32, {-1, w.shape[1]});
  require(w.shape[0] % outputs_per_number == 0, "weight has an odd number of rows: there is a gate without a partner");
  const Checked o = check_tensor(device, "out", out, kF32, {a.shape[0], w.shape[0] / outputs_per_number});
  Typed b{nullptr, 0, PS_F32};
  if (bias != nullptr) b = check_tensor(device, "bias", bias, kFloats, {w.shape[0]}).typed();
  return {a.rows<const float>(), w.typed(), b, o.rows<float>(), a.shape[0], w.shape[1], w.shape[0]};
}

}  // namespace

extern "C" {

int32_t ps_embedding(ps_device *device, const ps_tensor *ids, const ps_tensor *table, const ps_tensor *out) {
  return guard_each(device, [&] {
    const Checked t = check_tensor(*device, "table", table, kWeights, {-1, -1});
    const Checked i = check_tensor(*device, "ids", ids, kI32, {-1});
    const Checked o = check_tensor(*device, "out", out, kF32, {i.shape[0], t.shape[1]});
    require_apart("out", out, {ids});
    embedding(*device->backend, {i.ints(), t.typed(), o.rows<float>(), i.shape[0], t.shape[0], t.shape[1]});
  });
}

int32_t ps_rms_norm(ps_device *device, const ps_tensor *x, const ps_tensor *weight, float eps, const ps_tensor *out) {
  return guard_each(device, [&] {
    const Checked w = check_tensor(*device, "weight", weight, kFloats, {-1});
    const Checked a = check_heads(*device, "x", x, -1, w.shape[0]);
    const int64_t heads = x->rank == 2 ? 1 : a.shape[1];
    const Checked o = check_heads(*device, "out", out, heads, w.shape[0]);
    require(o.shape[0] == a.shape[0] && out->rank == x->rank, "out and x have different shapes");
    rms_norm(*device->backend, {a.rows<const float>(), w.typed(), o.rows<float>(), a.shape[0], heads, w.shape[0], eps});
  });
}

int32_t ps_add_rms_norm(ps_device *device, const ps_tensor *x, const ps_tensor *y, const ps_tensor *weight, float eps, const ps_tensor *out) {
  return guard_each(device, [&] {
    const Checked w = check_tensor(*device, "weight", weight, kFloats, {-1});
    const Checked a = check_tensor(*device, "x", x, kF32, {-1, w.shape[0]});
    const Checked b = check_tensor(*device, "y", y, kF32, {a.shape[0], w.shape[0]});
    const Checked o = check_tensor(*device, "out", out, kF32, {a.shape[0], w.shape[0]});
    require(o.data != a.data && o.data != b.data, "out must be neither x nor y");
    add_rms_norm(*device->backend,
                 {a.rows<float>(), b.rows<const float>(), {a.rows<const float>(), w.typed(), o.rows<float>(), a.shape[0], 1, w.shape[0], eps}});
  });
}

int32_t ps_rope_table(ps_device *device, const ps_tensor *positions, const ps_tensor *inv_freq, float scale, float position_beta,
                      int32_t position_origin, const ps_tensor *out) {
  return guard_each(device, [&] {
    const Checked p = check_tensor(*device, "positions", positions, kI32, {-1});
    const Checked f = check_tensor(*device, "inv_freq", inv_freq, kF32, {-1});
    const Checked o = check_tensor(*device, "out", out, kF32, {p.shape[0], 2 * f.shape[0]});
    require(position_beta == 0 || position_origin > 0, "position_origin must be above 0");
    rope_table(*device->backend, {p.ints(), f.floats(), o.rows<float>(), p.shape[0], f.shape[0], scale, position_beta, position_origin});
  });
}

int32_t ps_rope(ps_device *device, const ps_tensor *x, const ps_tensor *table) {
  return guard_each(device, [&] {
    const Checked a = check_tensor(*device, "x", x, kF32, {-1, -1, -1});
    const Checked t = check_tensor(*device, "table", table, kF32, {a.shape[0], -1});
    require(t.shape[1] % 2 == 0 && t.shape[1] <= a.shape[2], "table is wider than a head, or its width is odd");
    rope(*device->backend, {a.rows<float>(), t.rows<const float>(), a.shape[0], a.shape[1], a.shape[2], t.shape[1] / 2});
  });
}

int32_t ps_silu_mul(ps_device *device, const ps_tensor *gate, const ps_tensor *up, const ps_tensor *out) {
  return guard_each(device, [&] { silu_mul(*device->backend, check_gated(*device, gate, up, out)); });
}

int32_t ps_matmul(ps_device *device, const ps_tensor *x, const ps_tensor *weight, const ps_tensor *bias, const ps_tensor *out) {
  return guard_each(device, [&] { matmul(*device->backend, check_product(*device, x, weight, bias, out, 1)); });
}

int32_t ps_fused_matmul(ps_device *device, const ps_tensor *x, const ps_tensor *norm, float eps, const ps_tensor *weight, const ps_tensor *bias,
                        int32_t ending, const ps_tensor *normed, const ps_tensor *product, const ps_tensor *out, const ps_tensor *next_norm,
                        const ps_tensor *next_normed) {
  return guard_each(device, [&] {
    require(ending >= PS_STORE && ending <= PS_GELU_MUL, "The ending is unknown");
    require((norm == nullptr) == (normed == nullptr), "norm and normed must both be NULL or neither");
    require((ending == PS_STORE) == (product == nullptr), "product must be NULL for PS_STORE, and for no other ending");
    const bool gated = ending == PS_SILU_MUL || ending == PS_GELU_MUL;
    require((next_norm == nullptr) == (next_normed == nullptr), "next_norm and next_normed must both be NULL or neither");
    require(next_norm == nullptr || ending == PS_ADD, "next_norm must be NULL unless the ending is PS_ADD");
    constexpr Typed kNone{nullptr, 0, PS_F32};
    FusedMatmulParams params{check_product(*device, x, weight, bias, out, gated ? 2 : 1), kNone, eps, ps_ending(ending), {}, {}, kNone, {}};
    const MatmulParams &matmul = params.matmul;
    if (norm != nullptr) {
      params.norm = check_tensor(*device, "norm", norm, kFloats, {matmul.inputs}).typed();
      params.normed = check_tensor(*device, "normed", normed, kF32, {matmul.tokens, matmul.inputs}).rows<float>();
    }
    if (product != nullptr) params.product = check_tensor(*device, "product", product, kF32, {matmul.tokens, matmul.outputs}).rows<float>();
    if (next_norm != nullptr) {
      params.next_norm = check_tensor(*device, "next_norm", next_norm, kFloats, {matmul.outputs}).typed();
      params.next_normed = check_tensor(*device, "next_normed", next_normed, kF32, {matmul.tokens, matmul.outputs}).rows<float>();
    }
    const float *const target = matmul.out.data;
    require(target != matmul.x.data && target != params.normed.data && target != params.product.data, "out must be none of x, normed and product");
    require(params.normed.data == nullptr || params.normed.data != matmul.x.data, "normed must not be x");
    const float *const next = params.next_normed.data;
    require(next == nullptr || (next != target && next != params.product.data), "next_normed must be neither out nor product");
    fused_matmul(*device->backend, params);
  });
}

int32_t ps_add(ps_device *device, const ps_tensor *x, const ps_tensor *y) {
  return guard_each(device, [&] {
    const Checked a = check_tensor(*device, "x", x, kF32, {-1, -1});
    const Checked b = check_tensor(*device, "y", y, kF32, {a.shape[0], a.shape[1]});
    add(*device->backend, {a.rows<float>(), b.rows<const float>(), a.shape[0], a.shape[1]});
  });
}

int32_t ps_argmax(ps_device *device, const ps_tensor *x, const ps_tensor *out) {
  return guard_each(device, [&] {
    const Checked a = check_tensor(*device, "x", x, kF32, {-1, -1});
    const Checked o = check_tensor(*device, "out", out, kI32, {a.shape[0]});
    require(a.shape[1] <= INT32_MAX, "x has more columns than an i32 can index");
    argmax(*device->backend, {a.rows<const float>(), o.ints(), a.shape[0], a.shape[1]});
  });
}

int32_t ps_sample(ps_device *device, const ps_tensor *logits, const ps_tensor *settings, const ps_tensor *draws, const ps_tensor *out) {
  return guard_each(device, [&] {
    const Checked l = check_tensor(*device, "logits", logits, kF32, {-1, -1});
    const Checked s = check_dense(*device, "settings", settings, kF32, {l.shape[0], 4});
    const Checked d = check_tensor(*device, "draws", draws, kF32, {l.shape[0]});
    const Checked o = check_tensor(*device, "out", out, kI32, {l.shape[0]});
    require(l.shape[1] <= sampling::kMostTokens, "logits has more than 8388608 columns");
    sample(*device->backend, {l.rows<const float>(), s.floats(), d.floats(), o.ints(), l.shape[0], l.shape[1]});
  });
}

int32_t ps_route_experts(ps_device *device, const ps_tensor *logits, int32_t normalize, const ps_tensor *experts, const ps_tensor *weights) {
  return guard_each(device, [&] {
    const Checked l = check_tensor(*device, "logits", logits, kF32, {-1, -1});
    const Checked e = check_tensor(*device, "experts", experts, kI32, {l.shape[0], -1});
    const Checked w = check_tensor(*device, "weights", weights, kF32, {l.shape[0], e.shape[1]});
    require(e.shape[1] <= l.shape[1], "More experts per token than the model has");
    route_experts(*device->backend, {l.rows<const float>(), e.rows<int32_t>(), w.rows<float>(), l.shape[0], l.shape[1], e.shape[1], normalize != 0});
  });
}

int32_t ps_scatter_add(ps_device *device, const ps_tensor *x, const ps_tensor *rows, const ps_tensor *weights, const ps_tensor *out) {
  return guard_each(device, [&] {
    const Checked a = check_tensor(*device, "x", x, kF32, {-1, -1});
    const Checked r = check_tensor(*device, "rows", rows, kI32, {a.shape[0]});
    const Checked w = check_tensor(*device, "weights", weights, kF32, {a.shape[0]});
    const Checked o = check_tensor(*device, "out", out, kF32, {-1, a.shape[1]});
    require_apart("out", out, {rows});
    scatter_add(*device->backend, {a.rows<const float>(), r.ints(), w.floats(), o.rows<float>(), a.shape[0], o.shape[0], a.shape[1]});
  });
}

int32_t ps_gelu_mul(ps_device *device, const ps_tensor *gate, const ps_tensor *up, const ps_tensor *out) {
  return guard_each(device, [&] { gelu_mul(*device->backend, check_gated(*device, gate, up, out)); });
}

int32_t ps_scale(ps_device *device, const ps_tensor *x, float factor) {
  return guard_each(device, [&] {
    const Checked a = check_tensor(*device, "x", x, kF32, {-1, -1});
    scale(*device->backend, {a.rows<float>(), a.shape[0], a.shape[1], factor});
  });
}

}  // extern "C"
