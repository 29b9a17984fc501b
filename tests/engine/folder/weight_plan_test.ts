import { assertEquals, assertThrows } from "@std/assert";
import { join } from "@std/path";
import type { CheckpointTensor } from "../../../engine/folder/checkpoint.ts";
import { openCheckpoint } from "../../../engine/folder/checkpoint.ts";
import { type ModelConfig, readModelConfig } from "../../../engine/folder/config.ts";
import { PagesiftError } from "../../../engine/errors.ts";
import { tieEqualWeights } from "../../../engine/folder/tied_weights.ts";
import { planWeights } from "../../../engine/folder/weight_plan.ts";
import { withFiles } from "../../support/folders.ts";
import { fixtureFolder } from "../../support/fixture_model.ts";

interface Headers {
  config: ModelConfig;
  tensors: Map<string, CheckpointTensor>;
}

async function readHeaders(name: string): Promise<Headers> {
  const folder = fixtureFolder(name);
  return { config: await readModelConfig(folder), tensors: new Map((await openCheckpoint(folder)).tensors) };
}

/** Changes what the header says of one tensor. */
function change({ tensors }: Headers, name: string, fields: Partial<CheckpointTensor>): void {
  const tensor = tensors.get(name);
  if (!tensor) throw new Error(`The fixture has no tensor "${name}"`);
  tensors.set(name, { ...tensor, ...fields });
}

/** Adds a tensor like another one. */
function addLike({ tensors }: Headers, name: string, like: string): void {
  const tensor = tensors.get(like);
  if (!tensor) throw new Error(`The fixture has no tensor "${like}"`);
  tensors.set(name, { ...tensor, name });
}

function assertRefused({ config, tensors }: Headers, message: string): void {
  const error = assertThrows(() => planWeights(config, tensors), PagesiftError);
  assertEquals([error.kind, error.message], ["model", message]);
}

const ATTENTION = "model.layers.1.self_attn";

Deno.test("planWeights lists the tensors that are missing", async () => {
  const headers = await readHeaders("llama-f32");
  headers.tensors.delete(`${ATTENTION}.k_proj.weight`);
  headers.tensors.delete("model.norm.weight");
  assertRefused(
    headers,
    "The model folder lacks 2 tensors that its config.json requires: " +
      `"${ATTENTION}.k_proj.weight", "model.norm.weight"`,
  );
});

Deno.test("planWeights names the first eight of many missing tensors and counts the others", async () => {
  const headers = await readHeaders("llama-f32");
  for (const name of headers.tensors.keys()) if (name.includes(".layers.0.")) headers.tensors.delete(name);
  const { message } = assertThrows(() => planWeights(headers.config, headers.tensors), PagesiftError);
  assertEquals([message.match(/"model\.layers\.0\.[^"]+"/g)?.length, message.slice(-11)], [8, " and 1 more"]);
});

Deno.test("planWeights lists the tensors that nothing would read", async () => {
  const headers = await readHeaders("llama-f32");
  addLike(headers, "model.layers.3.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight");
  addLike(headers, `${ATTENTION}.q_proj.bias`, "model.norm.weight");
  assertRefused(
    headers,
    "The model folder contains 2 tensors that LlamaForCausalLM does not use: " +
      `"model.layers.3.mlp.up_proj.weight", "${ATTENTION}.q_proj.bias"`,
  );
});

Deno.test("planWeights passes over the frequency tensors of old checkpoints", async () => {
  const headers = await readHeaders("llama-f32");
  const { size } = planWeights(headers.config, headers.tensors).tensors;
  addLike(headers, `${ATTENTION}.rotary_emb.inv_freq`, "model.norm.weight");
  const { tensors, notices } = planWeights(headers.config, headers.tensors);
  assertEquals([tensors.size, notices], [size, []]);
});

Deno.test("planWeights ignores tables and heads that the architecture does not use, with one warning", async () => {
  const headers = await readHeaders("llama-f32");
  const { size } = planWeights(headers.config, headers.tensors).tensors;
  const names = [
    `${ATTENTION}.rotary_emb.cos_cached`,
    "v_head.summary.weight",
    "score.weight",
    "mtp.layers.0.norm.weight",
  ];
  for (const name of names) addLike(headers, name, "model.norm.weight");
  const { tensors, notices } = planWeights(headers.config, headers.tensors);
  const text = `Ignored 4 tensors that LlamaForCausalLM does not use: ${names.map((name) => `"${name}"`).join(", ")}`;
  assertEquals([tensors.size, notices], [size, [{ level: "warning", text }]]);
});

Deno.test("planWeights ignores a tensor of size 0 of any name that is not needed", async () => {
  const headers = await readHeaders("llama-f32");
  addLike(headers, `${ATTENTION}.q_proj.bias`, "model.norm.weight");
  change(headers, `${ATTENTION}.q_proj.bias`, { shape: [0], bytes: 0 });
  assertEquals(planWeights(headers.config, headers.tensors).notices.length, 1);
});

Deno.test("planWeights refuses a needed tensor of size 0", async () => {
  const headers = await readHeaders("llama-f32");
  change(headers, "model.norm.weight", { shape: [0], bytes: 0 });
  assertRefused(headers, 'Tensor "model.norm.weight" has shape [0], but config.json requires [64]');
});

for (const name of ["lm_head.bias", "model.norm.bias", "model.embed_positions.weight", `${ATTENTION}.q_proj.lora_A`]) {
  Deno.test(`planWeights refuses ${name}, which would change the result`, async () => {
    const headers = await readHeaders("llama-f32");
    addLike(headers, name, "model.norm.weight");
    assertThrows(() => planWeights(headers.config, headers.tensors), PagesiftError, `"${name}"`);
  });
}

Deno.test("planWeights names a tensor of another shape with both shapes", async () => {
  const headers = await readHeaders("llama-f32");
  change(headers, "model.layers.2.mlp.down_proj.weight", { shape: [160, 64] });
  assertRefused(
    headers,
    'Tensor "model.layers.2.mlp.down_proj.weight" has shape [160, 64], but config.json requires [64, 160]',
  );
});

Deno.test("planWeights refuses projections whose rows only add up together", async () => {
  const headers = await readHeaders("llama-f32");
  change(headers, `${ATTENTION}.k_proj.weight`, { shape: [16, 64] });
  change(headers, `${ATTENTION}.v_proj.weight`, { shape: [48, 64] });
  assertRefused(headers, `Tensor "${ATTENTION}.k_proj.weight" has shape [16, 64], but config.json requires [32, 64]`);
});

Deno.test("planWeights refuses a norm of two dimensions", async () => {
  const headers = await readHeaders("llama-f32");
  change(headers, "model.norm.weight", { shape: [64, 1] });
  assertThrows(() => planWeights(headers.config, headers.tensors), PagesiftError, '"model.norm.weight" has shape');
});

Deno.test("planWeights refuses parts of one projection with different dtypes", async () => {
  const headers = await readHeaders("llama-f32");
  change(headers, `${ATTENTION}.k_proj.weight`, { dtype: "F16" });
  assertRefused(
    headers,
    `Tensor "${ATTENTION}.q_proj.weight", "${ATTENTION}.k_proj.weight", "${ATTENTION}.v_proj.weight" has dtype ` +
      "F32, F16, expected F32, F16 or BF16, the same for all that are stacked",
  );
});

Deno.test("planWeights refuses a dtype that the operations cannot read", async () => {
  const headers = await readHeaders("llama-f32");
  change(headers, "model.norm.weight", { dtype: "F64" });
  assertRefused(
    headers,
    'Tensor "model.norm.weight" has dtype F64, expected F32, F16 or BF16, the same for all that are stacked',
  );
});

Deno.test("planWeights takes another dtype for a whole tensor", async () => {
  const headers = await readHeaders("qwen3-sharded-bf16");
  change(headers, "model.norm.weight", { dtype: "F32" });
  const { tensors, dtype } = planWeights(headers.config, headers.tensors);
  assertEquals([dtype, tensors.get("norm.weight")?.dtype], ["bf16", "f32"]);
});

Deno.test("planWeights plans no output projection where the embedding serves", async () => {
  const { config, tensors } = await readHeaders("qwen3-qknorm-f32");
  assertEquals(planWeights(config, tensors).tensors.has("logits.weight"), false);
});

Deno.test("tieEqualWeights leaves an lm_head that equals its tied embedding where it lies", async () => {
  const { config, tensors } = await readHeaders("qwen3-qknorm-f32");
  addLike({ config, tensors }, "lm_head.weight", "model.embed_tokens.weight");
  const plan = await tieEqualWeights(config, planWeights(config, tensors));
  assertEquals([plan.tensors.has("logits.weight"), plan.notices], [false, []]);
});

for (
  const [name, fields] of [
    ["differs", (embedding: CheckpointTensor) => ({ offsetBytes: embedding.offsetBytes + 4 })],
    ["has another dtype", () => ({ dtype: "F16" as const })],
  ] as const
) {
  Deno.test(`tieEqualWeights keeps an lm_head that ${name}, with a warning`, async () => {
    const { config, tensors } = await readHeaders("qwen3-qknorm-f32");
    const embedding = tensors.get("model.embed_tokens.weight")!;
    tensors.set("lm_head.weight", { ...embedding, name: "lm_head.weight", ...fields(embedding) });
    const plan = await tieEqualWeights(config, planWeights(config, tensors));
    assertEquals([plan.tensors.has("logits.weight"), plan.notices.map(({ level }) => level)], [true, ["warning"]]);
  });
}

Deno.test("tieEqualWeights compares to the last byte", async () => {
  const { config, tensors } = await readHeaders("qwen3-qknorm-f32");
  const embedding = tensors.get("model.embed_tokens.weight")!;
  const bytes = (await Deno.readFile(embedding.file)).slice(
    embedding.offsetBytes,
    embedding.offsetBytes + embedding.bytes,
  );
  bytes[bytes.length - 1]! ^= 1;
  await withFiles({ head: bytes }, async (folder) => {
    const head = { ...embedding, name: "lm_head.weight", file: join(folder, "head"), offsetBytes: 0 };
    tensors.set("lm_head.weight", head);
    const plan = await tieEqualWeights(config, planWeights(config, tensors));
    assertEquals(plan.tensors.has("logits.weight"), true);
  });
});

Deno.test("planWeights takes a tied lm_head for the embedding where only that is there", async () => {
  const { config, tensors } = await readHeaders("qwen3-qknorm-f32");
  addLike({ config, tensors }, "lm_head.weight", "model.embed_tokens.weight");
  tensors.delete("model.embed_tokens.weight");
  const plan = planWeights(config, tensors).tensors;
  assertEquals(plan.get("embedding.weight")?.parts[0]?.name, "lm_head.weight");
  assertEquals(plan.has("logits.weight"), false);
});

Deno.test("planWeights refuses embeddings that are not tied without an lm_head", async () => {
  const headers = await readHeaders("llama-f32");
  headers.tensors.delete("lm_head.weight");
  assertRefused(headers, 'The model folder lacks 1 tensors that its config.json requires: "lm_head.weight"');
});

Deno.test("planWeights refuses a tied folder with neither of the two", async () => {
  const headers = await readHeaders("qwen3-qknorm-f32");
  headers.tensors.delete("model.embed_tokens.weight");
  assertRefused(headers, 'The model folder lacks 1 tensors that its config.json requires: "model.embed_tokens.weight"');
});

Deno.test("planWeights refuses a tied lm_head of another shape, as transformers does", async () => {
  const headers = await readHeaders("qwen3-qknorm-f32");
  addLike(headers, "lm_head.weight", "model.norm.weight");
  assertThrows(() => planWeights(headers.config, headers.tensors), PagesiftError, '"lm_head.weight" has shape');
});

Deno.test("planWeights stacks separate projections in the order q, k, v and gate, up", async () => {
  const { config, tensors } = await readHeaders("llama-f32");
  const plan = planWeights(config, tensors).tensors;
  const parts = (name: string): string[] | undefined =>
    plan.get(name)?.parts.map((part) => part.name.split(".").at(-2) ?? "");
  assertEquals(parts("layers.0.qkv.weight"), ["q_proj", "k_proj", "v_proj"]);
  assertEquals(parts("layers.0.gate_up.weight"), ["gate_proj", "up_proj"]);
});

Deno.test("planWeights takes fused projections in one part", async () => {
  const { config, tensors } = await readHeaders("phi3-fused-f32");
  const plan = planWeights(config, tensors).tensors;
  const names = ["layers.0.qkv.weight", "layers.0.gate_up.weight"];
  assertEquals(names.map((name) => plan.get(name)?.parts.length), [1, 1]);
  assertEquals(names.map((name) => plan.get(name)?.shape), [[128, 64], [320, 64]]);
});

Deno.test("planWeights plans the biases of Qwen2 and the norms of Qwen3", async () => {
  const [qwen2, qwen3] = await Promise.all([readHeaders("qwen2-bias-f32"), readHeaders("qwen3-qknorm-f32")]);
  const [biased, normed] = [qwen2, qwen3].map(({ config, tensors }) => planWeights(config, tensors).tensors);
  assertEquals(biased?.get("layers.0.qkv.bias")?.shape, [128]);
  assertEquals(normed?.get("layers.0.q_norm.weight")?.shape, [32]);
});
