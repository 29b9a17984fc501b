/** Decode steps of a model against the plain reference of the method, layer by layer. */
import { assertEquals } from "@std/assert";
import { DecodeBatch, type DecodeStep } from "../../engine/decode_batch.ts";
import { KvPool } from "../../engine/pages/kv_pool.ts";
import { exceedsBudget, resolvePolicy } from "../../engine/pages/page_policy.ts";
import type { Sequence } from "../../engine/pages/sequence.ts";
import type { SparseOptions } from "../../engine/types.ts";
import { decodeAttention, inPages, inWindow } from "../reference/decode_attention.ts";
import { pageScores, SCORERS } from "../reference/page_score.ts";
import { selectPages } from "../reference/page_select.ts";
import { pageStatistics } from "../reference/page_statistics.ts";
import { assertNumbersClose, assertSameBits } from "../support/compare.ts";
import { type LayerTrace, prefill, type Prefilled, traceDecode } from "../support/decode_trace.ts";
import { deviceTest } from "../support/device.ts";
import { loadFixture, promptIds } from "../support/fixture_model.ts";
import { cacheShape } from "../support/paged.ts";

const MODEL = "llama-f32";

/** What the reference makes of a layer's query, keys and values. */
function wantedAttention({ policy, pool, sequence }: Prefilled, layer: number, trace: LayerTrace): Float64Array {
  const { query, keys, values } = trace;
  const { numKvHeads, headDim, pageSize } = pool.shape;
  const rule = policy.layers[layer];
  if (rule?.kind !== "sparse" || !exceedsBudget(policy, sequence.length)) {
    const window = rule?.kind === "window" ? rule.tokens : 0;
    return decodeAttention(query, keys, values, pool.shape, inWindow(sequence.length, window));
  }
  const statistics = pageStatistics(keys, numKvHeads, headDim, pageSize);
  const selected = pageScores(query, statistics, pool.shape, policy.scorer, policy.lambda)
    .map((scores) => selectPages(scores, policy.budgetPages, policy.sinkPages, policy.recentPages));
  return decodeAttention(query, keys, values, pool.shape, inPages(selected, pageSize));
}

async function assertLikeReference(model: string, sparse: SparseOptions, promptTokens = 220): Promise<void> {
  await using engine = await loadFixture(model);
  const prefilled = await prefill(engine, promptIds(model, promptTokens), sparse);
  const { numQueryHeads, headDim } = engine.config;
  traceDecode(prefilled, 5).forEach((trace, layer) => {
    const wanted = wantedAttention(prefilled, layer, trace);
    assertNumbersClose(trace.attended, wanted, [numQueryHeads, headDim], { relative: 1e-4 });
  });
}

for (const scorer of SCORERS) {
  Deno.test(`Model.decode attends to the pages that the reference of ${scorer} selects`, async () => {
    await assertLikeReference(MODEL, { mode: "on", budgetTokens: 48, scorer });
  });
}

for (const model of ["llama-linear-rope-f16", "qwen3-sharded-bf16"]) {
  Deno.test(`Model.decode selects from keys as they are stored (${model})`, async () => {
    await assertLikeReference(model, { mode: "on", budgetTokens: 48 });
  });
}

for (const [what, tokens] of [["of one token", 216], ["that it fills", 223]] as const) {
  Deno.test(`Model.decode attends to a last page ${what}`, async () => {
    await assertLikeReference(MODEL, { mode: "on", budgetTokens: 48 }, tokens);
  });
}

Deno.test("Model.decode reads all pages in dense layers and selected ones in the others", async () => {
  await assertLikeReference(MODEL, { mode: "on", budgetTokens: 48, denseLayers: 1 });
});

Deno.test("Model.decode attends to the window alone in layers that have one", async () => {
  await assertLikeReference("mistral-sliding-bf16", { mode: "on", budgetTokens: 24 });
});

Deno.test("Model.decode with as many pages as the budget attends to all of them", async () => {
  await assertLikeReference(MODEL, { mode: "on", budgetTokens: 224 }, 223);
});

Deno.test("Model.decode with as many pages as the budget gives the same bits as dense attention", async () => {
  await using engine = await loadFixture(MODEL);
  const sparse = traceDecode(await prefill(engine, promptIds(MODEL, 223), { mode: "on", budgetTokens: 224 }), 5);
  const dense = traceDecode(await prefill(engine, promptIds(MODEL, 223), { mode: "off" }), 5);
  sparse.forEach(({ attended }, layer) => assertSameBits(attended, dense[layer]?.attended ?? new Float32Array()));
});

interface Pair {
  batch: DecodeBatch;
  first: Sequence;
  second: Sequence;
}

/** Two sequences of 15 and 8 tokens in one pool, and a budget of two pages. */
function pairTest(name: string, body: (pair: Pair) => void): void {
  deviceTest(name, (device) => {
    const heads = { numQueryHeads: 2, numKvHeads: 1, headDim: 16 };
    const pool = new KvPool(device, cacheShape({ ...heads, dtype: "f32", pageSize: 8 }));
    const [first, second] = [pool.openSequence(), pool.openSequence()];
    first.extend(15);
    second.extend(8);
    const policy = resolvePolicy({ mode: "on", budgetTokens: 16 }, [0]);
    const selects = (lengths: readonly number[]) => lengths.some((length) => exceedsBudget(policy, length));
    body({ batch: new DecodeBatch(device, pool, policy, selects), first, second });
  });
}

/** What a step tells the device: ids, positions, slots, lengths, and the pages in use of each sequence. */
function describe(step: DecodeStep, sequences: readonly Sequence[]): number[][] {
  const { pageTable, lengths } = step.sequences;
  const rows = sequences.map(({ pages }, row) => pageTable.rows(row, 1).readInts().slice(0, pages.length));
  return [...[step.ids, step.positions, step.slots, lengths].map((tensor) => tensor.readInts()), ...rows].map((row) => [
    ...row,
  ]);
}

pairTest("DecodeBatch.advance places each sequence's token behind its others", ({ batch, first, second }) => {
  const step = batch.advance([first, second], [7, 9]);
  assertEquals(describe(step, [first, second]), [[7, 9], [15, 8], [15, 24], [16, 9], [0, 1], [2, 3]]);
});

pairTest("DecodeBatch.advance adds the pages that a sequence grows into", ({ batch, first, second }) => {
  batch.advance([first, second], [7, 9]);
  const step = batch.advance([first, second], [8, 10]);
  assertEquals(describe(step, [first, second]), [[8, 10], [16, 9], [32, 25], [17, 10], [0, 1, 4], [2, 3]]);
});

pairTest("DecodeBatch.advance moves a sequence up when the one before it has ended", ({ batch, first, second }) => {
  batch.advance([first, second], [7, 9]);
  first.release();
  assertEquals(describe(batch.advance([second], [10]), [second]), [[10], [9], [25], [10], [2, 3]]);
});

pairTest("DecodeBatch.advance selects once one sequence exceeds the budget", ({ batch, first, second }) => {
  assertEquals(batch.advance([first, second], [7, 9]).selecting, undefined);
  const { selecting } = batch.advance([first, second], [8, 10]);
  assertEquals(selecting?.selection.selected.shape, [2, 1, 2]);
});

pairTest("DecodeBatch.advance stops selecting when the long sequence has ended", ({ batch, first, second }) => {
  first.extend(2);
  assertEquals(batch.advance([first, second], [7, 9]).selecting !== undefined, true);
  assertEquals(batch.advance([second], [10]).selecting, undefined);
});
