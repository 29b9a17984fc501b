/** A model of a given shape whose weights, keys and values are random: what decides its speed, without a checkpoint or a prefill. */
import { format } from "@std/fmt/bytes";
import { type ModelConfig, parseModelConfig } from "../../engine/config.ts";
import type { KvPool } from "../../engine/kv_pool.ts";
import { checkWeightsFit } from "../../engine/memory.ts";
import type { Sequence } from "../../engine/sequence.ts";
import type { PlannedTensor, WeightPlan } from "../../engine/weight_plan.ts";
import { weightBytes, Weights } from "../../engine/weights.ts";
import type { Device } from "../../ffi/device.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import type { CacheShape } from "../../ffi/structs.ts";
import { log } from "./lines.ts";
import { median } from "./session.ts";

/** Layers, hidden and intermediate size, query heads, KV heads, head size, vocabulary; then what differs in kind. */
const SHAPES: Readonly<Record<string, { sizes: readonly number[]; architecture: string; tied: boolean }>> = {
  "qwen3-8b": {
    sizes: [36, 4096, 12288, 32, 8, 128, 151_936],
    architecture: "Qwen3ForCausalLM",
    tied: false,
  },
  "qwen3-0.6b": { sizes: [28, 1024, 3072, 16, 8, 128, 151_936], architecture: "Qwen3ForCausalLM", tied: true },
  "llama-3.2-1b": { sizes: [16, 2048, 8192, 32, 8, 64, 128_256], architecture: "LlamaForCausalLM", tied: true },
  "default": { sizes: [8, 256, 768, 8, 2, 64, 4096], architecture: "Qwen3ForCausalLM", tied: true },
};
/** Random numbers that the weights repeat. */
const BLOCK_BYTES = 64 << 20;
/** Tokens that one append takes in. */
const FILL_TOKENS = 8192;
/** Read to measure the peak; more than any cache. */
const PEAK_BYTES = { cuda: 4 * 2 ** 30, cpu: 256 << 20 } as const;
const PEAK_REPEATS = 10;

/** The config of a shape. @throws {Error} when the name is unknown */
export function configOf(name: string, maxContext: number): ModelConfig {
  const shape = SHAPES[name];
  if (!shape) throw new Error(`--shape is "${name}", wanted ${Object.keys(SHAPES).join(", ")}`);
  const [layers, hidden, intermediate, queryHeads, kvHeads, headDim, vocabulary] = shape.sizes;
  const json = {
    architectures: [shape.architecture],
    model_type: shape.architecture.startsWith("Qwen3") ? "qwen3" : "llama",
    ...{ num_hidden_layers: layers, hidden_size: hidden, intermediate_size: intermediate, vocab_size: vocabulary },
    ...{ num_attention_heads: queryHeads, num_key_value_heads: kvHeads, head_dim: headDim },
    ...{ hidden_act: "silu", rms_norm_eps: 1e-6, rope_theta: 1e6, tie_word_embeddings: shape.tied, eos_token_id: 0 },
    ...{ max_position_embeddings: maxContext, torch_dtype: "bfloat16" },
  };
  return parseModelConfig(json, `shape ${name}`);
}

/** The tensors of a model without experts and biases, which no file holds. */
export function planShape(config: ModelConfig): WeightPlan {
  const { hiddenSize, intermediateSize, numQueryHeads, numKvHeads, headDim, vocabSize } = config;
  const layer: [string, number[]][] = [
    ["attention_norm", [hiddenSize]],
    ["qkv", [(numQueryHeads + 2 * numKvHeads) * headDim, hiddenSize]],
    ["output", [hiddenSize, numQueryHeads * headDim]],
    ...(config.qkNorm ? ["q_norm", "k_norm"] : []).map((name): [string, number[]] => [name, [headDim]]),
    ["mlp_norm", [hiddenSize]],
    ["gate_up", [2 * intermediateSize, hiddenSize]],
    ["down", [hiddenSize, intermediateSize]],
  ];
  const all: [string, number[]][] = [
    ["embedding", [vocabSize, hiddenSize]],
    ...config.slidingWindows.flatMap((_, index) =>
      layer.map(([name, shape]): [string, number[]] => [`layers.${index}.${name}`, shape])
    ),
    ["norm", [hiddenSize]],
    ...(config.tieWordEmbeddings ? [] : [["logits", [vocabSize, hiddenSize]] as [string, number[]]]),
  ];
  const tensors = all.map(([name, shape]): [string, PlannedTensor] => [
    `${name}.weight`,
    { name: `${name}.weight`, shape, dtype: "bf16", parts: [] },
  ]);
  return { tensors: new Map(tensors), dtype: "bf16" };
}

/** Fast random words, the same in every run. */
function wordsFrom(seed: number): () => number {
  let word = seed;
  return () => {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    return word >>> 0;
  };
}

/** Numbers of either sign between 2^-7 and 2^-5, in bf16. */
export function randomBlock(): Uint16Array<ArrayBuffer> {
  const next = wordsFrom(1);
  const block = new Uint16Array(BLOCK_BYTES / 2);
  for (let index = 0; index < block.length; index++) {
    const word = next() >>> 8;
    block[index] = 0x3c00 + (word & 0xff) | (word & 0x100) << 7;
  }
  return block;
}

/** Writes the block over and over. */
function writeRepeated(
  write: (piece: Uint16Array<ArrayBuffer>, atBytes: number) => void,
  block: Uint16Array<ArrayBuffer>,
  bytes: number,
): void {
  for (let done = 0; done < bytes; done += block.byteLength) {
    write(block.subarray(0, Math.min(block.byteLength, bytes - done) / 2), done);
  }
}

/** Norms of ones; all else repeats the block. */
export function randomWeights(device: Device, plan: WeightPlan, block: Uint16Array<ArrayBuffer>): Weights {
  return Weights.fill(device, plan, ({ name, shape }, { buffer, offsetBytes }) => {
    const count = shape.reduce((product, size) => product * size, 1);
    const ones = name.endsWith("norm.weight");
    const source = ones ? new Uint16Array(count).fill(0x3f80) : block;
    writeRepeated((piece, at) => buffer.write(piece, offsetBytes + at), source, 2 * count);
  });
}

/** Says what will be needed, and refuses what cannot fit before anything is loaded. */
export function checkMemory(device: Device, plan: WeightPlan, shape: CacheShape): void {
  const { kv, statistics, scratch } = KvCache.measure(device, shape);
  const { availableBytes } = device.describe();
  const size = (bytes: number): string => format(bytes, { binary: true });
  const total = weightBytes(plan) + kv + statistics + scratch;
  const parts = `weights ${size(weightBytes(plan))}, KV ${size(kv)}, statistics ${size(statistics)}, scratch ${
    size(scratch)
  }`;
  log(`${parts}: ${size(total)} needed, ${size(availableBytes)} free`);
  checkWeightsFit(device, weightBytes(plan));
  if (total > availableBytes) {
    throw new Error(`Not enough memory: ${parts}, ${size(availableBytes)} free; lower --batch or --context`);
  }
}

/** Bytes a second that the device reads at most: a plain read of a large buffer of random numbers. */
export function measurePeak(device: Device, block: Uint16Array<ArrayBuffer>): number {
  const buffer = device.createBuffer(PEAK_BYTES[device.describe().backend]);
  try {
    writeRepeated((piece, at) => buffer.write(piece, at), block, buffer.bytes);
    buffer.scan();
    const seconds = Array.from({ length: PEAK_REPEATS }, () => {
      const started = performance.now();
      buffer.scan();
      return (performance.now() - started) / 1000;
    });
    return buffer.bytes / median(seconds);
  } finally {
    buffer.close();
  }
}

/** Bytes of weights that a step must read: all, but of a table that only embeds the rows of the tokens. */
export function weightsRead(plan: WeightPlan, batch: number): number {
  const [rows = 0, width = 0] = plan.tensors.get("embedding.weight")?.shape ?? [];
  const onlyEmbeds = plan.tensors.has("logits.weight");
  return weightBytes(plan) + 2 * width * (batch - (onlyEmbeds ? rows : 0));
}

/** Keys or values `[n, Hk, d]`: noise of deviation 0.7 around means that drift from page to page, or plain noise. */
function randomTokens(tokens: number, width: number, pageSize: number, drift: number): Float32Array<ArrayBuffer> {
  const next = wordsFrom(7 + drift);
  const noise = (deviation: number): number => (next() / 2 ** 32 - 0.5) * deviation * Math.sqrt(12);
  const out = new Float32Array(tokens * width);
  const means = new Float32Array(width).map(() => noise(drift));
  for (let token = 0; token < tokens; token++) {
    const turned = token % pageSize === 0;
    for (let dim = 0; dim < width; dim++) {
      if (turned) means[dim] = 0.95 * (means[dim] ?? 0) + noise(0.31 * drift);
      out[token * width + dim] = (means[dim] ?? 0) + noise(0.7);
    }
  }
  return out;
}

/** Sequences of `context` tokens in all layers. Every append takes another stretch of the same random tokens. */
export function fillCache(device: Device, pool: KvPool, batch: number, context: number): Sequence[] {
  const { numKvHeads, headDim, numLayers, pageSize } = pool.shape;
  const most = Math.min(FILL_TOKENS, context);
  const shape = [2 * most, numKvHeads, headDim];
  const [keys, values] = [1, 0].map((drift) =>
    device.upload(randomTokens(2 * most, numKvHeads * headDim, pageSize, drift), shape)
  );
  const places = device.createTensor("i32", [most]);
  if (!keys || !values) throw new Error("Nothing to fill the cache with");
  const next = wordsFrom(3);
  const sequences = Array.from({ length: batch }, () => pool.openSequence());
  for (const sequence of sequences) {
    while (sequence.length < context) {
      const tokens = Math.min(most, context - sequence.length);
      places.write(sequence.extend(tokens));
      for (let layer = 0; layer < numLayers; layer++) {
        const first = next() % (most + 1);
        pool.cache.append(layer, keys.rows(first, tokens), values.rows(first, tokens), places.rows(0, tokens));
      }
    }
  }
  places.buffer.read(new Uint8Array(4)); // waits, so that the tensors can go
  for (const { buffer } of [keys, values, places]) buffer.close();
  return sequences;
}
