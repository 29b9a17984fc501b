#pragma once

#include "../isa.h"
#include "add.h"
#include "append_kv.h"
#include "argmax.h"
#include "decode_attention.h"
#include "embedding.h"
#include "gelu_mul.h"
#include "matmul.h"
#include "matmul_quantized.h"
#include "page_mass.h"
#include "page_score.h"
#include "page_select.h"
#include "prefill_attention.h"
#include "prefill_choose.h"
#include "rms_norm.h"
#include "rope.h"
#include "route_experts.h"
#include "sample.h"
#include "scale.h"
#include "scan.h"
#include "scatter_add.h"
#include "silu_mul.h"
#include "weight_write.h"

namespace ps {
namespace PS_ISA {

static constexpr Kernels kernels(const char *name) {
  return {name,
          scan,
          weight_write,
          embedding,
          rms_norm,
          rope_table,
          rope,
          silu_mul,
          matmul,
          matmul_quantized,
          add,
          argmax,
          sample,
          route_experts,
          scatter_add,
          gelu_mul,
          scale,
          append_kv,
          page_statistics,
          page_score,
          page_select,
          decode_attention,
          page_mass,
          prefill_choose,
          prefill_attention};
}

}  // namespace PS_ISA
}  // namespace ps
