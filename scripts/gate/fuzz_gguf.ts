/** A GGUF file of a model as small as one can be, and changes to it. */
import { openModelSource } from "../../engine/source/model_source.ts";
import { planSource } from "../../engine/source/plan_source.ts";
import { type GgufTensor, type MetaValue, writeGguf } from "../peers/gguf/file.ts";
import type { Mutator } from "./mutate.ts";

const TOKENS = ["<s>", "</s>", "\u2581", "a", "b", "ab", "\u2581ab", "<0x41>", ".", "1", "\u00e9", "x"];
const WIDTH = 16;
const LAYER = {
  ...{ attn_q: 2, attn_k: 2, attn_v: 2, attn_output: 2, ffn_gate: 2, ffn_up: 2, ffn_down: 2 },
  ...{ attn_norm: 1, ffn_norm: 1 },
};
/** Numbers at the edges of what counts, sizes and offsets may be. */
const EDGES = [0n, 1n, 2n, 3n, 8n, 9n, 32n, 64n, 255n, 2n ** 16n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 40n, 2n ** 53n];
const MORE_EDGES = [2n ** 62n, 2n ** 63n, 2n ** 64n - 1n];

function fields(): Map<string, MetaValue> {
  return new Map<string, MetaValue>([
    ["general.architecture", { text: "llama" }],
    ["general.alignment", { u32: 32 }],
    ["llama.block_count", { u32: 1 }],
    ["llama.context_length", { u32: 128 }],
    ["llama.embedding_length", { u32: WIDTH }],
    ["llama.feed_forward_length", { u32: WIDTH }],
    ["llama.attention.head_count", { u32: 1 }],
    ["llama.attention.layer_norm_rms_epsilon", { f32: 1e-5 }],
    ["llama.rope.freq_base", { f32: 10_000 }],
    ["llama.rope.scaling.type", { text: "linear" }],
    ["llama.rope.scaling.factor", { f32: 2 }],
    ["tokenizer.ggml.model", { text: "llama" }],
    ["tokenizer.ggml.tokens", { texts: TOKENS }],
    ["tokenizer.ggml.scores", { f32s: TOKENS.map((_, id) => -id) }],
    ["tokenizer.ggml.token_type", { i32s: [3, 3, 1, 1, 1, 1, 1, 6, 1, 1, 1, 4] }],
    ["tokenizer.ggml.bos_token_id", { u32: 0 }],
    ["tokenizer.ggml.eos_token_id", { u32: 1 }],
    ["tokenizer.chat_template", { text: "{{ bos_token }}{{ messages[0].content }}" }],
  ]);
}

function tensor(name: string, shape: number[]): GgufTensor {
  const bytes = new Uint8Array(2 * shape.reduce((product, size) => product * size, 1));
  return { name, type: "F16", shape, write: (put) => put(bytes) };
}

/** The bytes of the file before any change, and how many of them come before the data. */
export function smallGguf(): { bytes: Uint8Array<ArrayBuffer>; headerBytes: number } {
  const layer = Object.entries(LAYER).map(([name, rank]) =>
    tensor(`blk.0.${name}.weight`, new Array<number>(rank).fill(WIDTH))
  );
  const tensors = [
    tensor("token_embd.weight", [TOKENS.length, WIDTH]),
    tensor("output_norm.weight", [WIDTH]),
    ...layer,
  ];
  const path = Deno.makeTempFileSync();
  writeGguf(path, fields(), tensors);
  const bytes = Deno.readFileSync(path);
  Deno.removeSync(path);
  const dataBytes = tensors.reduce((sum, { shape }) => sum + 2 * shape.reduce((product, size) => product * size, 1), 0);
  return { bytes, headerBytes: bytes.length - dataBytes };
}

/** The file with numbers of its header changed, parts of it moved, or its end cut. */
export function mutateGguf(
  { bytes, headerBytes }: { bytes: Uint8Array<ArrayBuffer>; headerBytes: number },
  mutator: Mutator,
): Uint8Array<ArrayBuffer> {
  let changed = new Uint8Array(bytes);
  for (let left = mutator.below(4); left > 0; left--) {
    const at = mutator.below(Math.min(headerBytes, changed.length) - 8);
    const view = new DataView(changed.buffer);
    const edge = mutator.pick([...EDGES, ...MORE_EDGES]);
    if (mutator.chance(0.3)) changed[at] = mutator.below(256);
    else if (mutator.chance(0.4)) view.setUint32(at, Number(edge % 2n ** 32n), true);
    else if (mutator.chance(0.6)) view.setBigUint64(at, edge, true);
    else {
      const end = at + 1 + mutator.below(40);
      const middle = mutator.chance(0.5) ? changed.slice(at, end) : new Uint8Array(0);
      changed = new Uint8Array([...changed.subarray(0, at), ...middle, ...middle, ...changed.subarray(end)]);
    }
  }
  return mutator.chance(0.1) ? mutator.bytes(changed) : changed;
}

/** Reads all of a file that the engine reads before the device. @throws {Error} where what was taken lies outside the file */
export async function readGgufFile(file: string, written: number, text: string): Promise<void> {
  const source = await openModelSource(file);
  const { tensors } = await planSource(source, source.config);
  for (const { name, parts } of tensors.values()) {
    const isInside = parts.every(({ offsetBytes, bytes }) => offsetBytes > 0 && offsetBytes + bytes <= written);
    if (!isInside) throw new Error(`Takes the tensor "${name}" out of bounds`);
  }
  const { vocabSize } = source.config;
  const tokenizer = await source.tokenizer({ vocabSize });
  const ids = tokenizer.encode(text);
  const outside = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (outside !== undefined) throw new Error(`Takes a tokenizer that gives the id ${outside}`);
  tokenizer.decode(ids);
}
