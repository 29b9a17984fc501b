/** Settings that take milliseconds. */
import type { AttentionLists } from "../../bench/attention_plan.ts";
import type { GenerateLists } from "../../bench/generate_plan.ts";
import type { QualityLists } from "../../bench/quality_plan.ts";
import type { Provenance, Row } from "../../bench/row.ts";

const rules = { levels: 2, lambda: undefined, sinkPages: 1, recentPages: 2, repetitions: 1 } as const;

export const tinyLists: AttentionLists = {
  ...{ context: "300", batch: "2", heads: "4/2", headDim: "32", pageSize: "8", budget: "64", scorer: "unique,quest" },
  ...{ dtype: "bf16", ...rules },
};

export const tinyGenerate: GenerateLists = {
  ...{ prompt: "8", decode: "4", depth: "0,200", batch: "1,2", pageSize: "8", budget: "64", scorer: "unique,diag" },
  ...{ denseLayers: 0, prefillBudget: "0", prefillDepth: false, ...rules },
};

export const tinyQuality: QualityLists = {
  ...{ task: "prose", length: "256", budget: "64", scorer: "unique,diag", pageSize: "8", documents: 1, facts: 1 },
  ...{
    proseTokens: 8,
    seed: 1,
    chat: false,
    levels: 2,
    lambda: undefined,
    sinkPages: 1,
    recentPages: 2,
    denseLayers: 0,
    prefillBudget: 0,
  },
};

export const provenance: Provenance = {
  ...{ version: "1.2.3", commit: "abc1234", device: "Some CPU", backend: "cpu", threads: 2, instruction_set: "avx2" },
  ...{ command: "pagesift bench attention -r 3", date: "2026-01-02T03:04Z", notes: ["A note."] },
};

/** A row of attention with some fields changed. */
export function attentionRow(changed: Partial<Row> = {}): Row {
  return {
    ...{ subject: "attention", arm: "dense", context_tokens: 4096, batch: 1, query_heads: 32, kv_heads: 8 },
    ...{ head_dim: 128, dtype: "bf16", page_size: 8, samples: 3, median_us: 100, low_us: 90, high_us: 120 },
    ...changed,
  };
}
