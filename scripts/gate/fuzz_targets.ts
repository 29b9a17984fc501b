/** Readers of a model folder under mutated input: the targets, and the properties of an accepted input. */
import { dirname, join } from "@std/path";
import { openCheckpoint } from "../../engine/folder/checkpoint.ts";
import { parseModelConfig } from "../../engine/folder/config.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { readSafetensorsHeader, type SafetensorsHeader } from "../../engine/folder/safetensors.ts";
import { Tokenizer } from "../../engine/text/tokenizer.ts";
import { planWeights } from "../../engine/folder/weight_plan.ts";
import { mutateGguf, readGgufFile, smallGguf } from "./fuzz_gguf.ts";
import type { Mutator } from "./mutate.ts";
import { ROOT } from "../release/native_library.ts";

export const TARGETS = ["safetensors", "config", "index", "tokenizer", "gguf"] as const;
export type Target = typeof TARGETS[number];

/** One input, ready to try. */
export interface Input {
  target: Target;
  bytes: Uint8Array<ArrayBuffer>;
}

const FIXTURE = join(ROOT, "tests", "fixtures", "hf");
const CONFIGS = ["llama-f32", "qwen3-moe-f32", "ministral3-bf16", "phi3-fused-f32", "qwen2-yarn-bf16"];

function tensor(dtype: string, shape: number[], begin: number, bytes: number): Record<string, unknown> {
  return { dtype, shape, data_offsets: [begin, begin + bytes] };
}

const HEADER = {
  __metadata__: { format: "pt" },
  "model.norm.weight": tensor("F32", [4], 0, 16),
  "lm_head.weight": tensor("BF16", [2, 4], 16, 16),
  scalar: tensor("I64", [], 32, 8),
  mask: tensor("U8", [3, 1, 8], 40, 24),
};
const DATA_BYTES = 64;
const INDEX = { metadata: { total_size: 8 }, weight_map: { a: "1.safetensors", b: "2.safetensors" } };
/** The file that an input is written to. */
const FILES = {
  safetensors: "fuzzed",
  index: "model.safetensors.index.json",
  tokenizer: "tokenizer.json",
  gguf: "fuzzed.gguf",
} as const satisfies Partial<Record<Target, string>>;
const LETTERS = ["<s>", "</s>", "\u2581", "a", "b", "<0x41>", ...Array.from(" .1\u00e9")];
/** A tokenizer with a part of every kind. */
const TOKENIZER = {
  added_tokens: ["<s>", "</s>"].map((content, id) => ({ id, content, special: true, normalized: false })),
  normalizer: {
    type: "Sequence",
    normalizers: [{ type: "Prepend", prepend: "\u2581" }, {
      type: "Replace",
      pattern: { String: " " },
      content: "\u2581",
    }],
  },
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [{
      type: "Split",
      pattern: { Regex: "\\p{L}+|\\s+(?!\\S)|[^a]" },
      behavior: "Isolated",
      invert: false,
    }],
  },
  post_processor: {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    special_tokens: { "<s>": { id: "<s>", ids: [0], tokens: ["<s>"] } },
  },
  decoder: {
    type: "Sequence",
    decoders: [
      { type: "Replace", pattern: { String: "\u2581" }, content: " " },
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ],
  },
  model: {
    ...{ type: "BPE", unk_token: "<s>", byte_fallback: true, fuse_unk: false },
    vocab: Object.fromEntries([...LETTERS, "ab", "\u2581ab"].map((token, id) => [token, id])),
    merges: ["a b", "\u2581 ab"],
  },
};
const TOKENIZER_ROWS = 16;
/** The text that an accepted tokenizer must encode and decode. */
const TEXT = "ab a <s>\n  \u00e91. \u{1f600}A";

const encoder = new TextEncoder();

/** Bytes of a safetensors file with this header, valid or not. */
function fileBytes(header: Uint8Array, claimed: bigint, dataBytes: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8 + header.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, claimed), true);
  bytes.set(header, 8);
  return bytes;
}

/** Generates inputs from the fixtures. */
export class InputMaker {
  readonly #configs = CONFIGS.map((name) => JSON.parse(Deno.readTextFileSync(join(FIXTURE, name, "config.json"))));

  readonly #gguf = smallGguf();

  constructor(readonly mutator: Mutator) {}

  next(): Input {
    const { mutator } = this;
    const json = mutator.pick(["config", "config", "config", "index", "index", "tokenizer"] as const);
    const target = mutator.chance(0.5) ? "safetensors" : mutator.chance(0.4) ? "gguf" : json;
    return { target, bytes: this.#make(target) };
  }

  #make(target: Target): Uint8Array<ArrayBuffer> {
    const { mutator } = this;
    if (target === "gguf") return mutateGguf(this.#gguf, mutator);
    if (target === "config") return this.#json(mutator.pick(this.#configs));
    if (target === "index") return this.#json(INDEX);
    if (target === "tokenizer") return this.#json(TOKENIZER);
    const header = this.#json(HEADER);
    const lie = mutator.chance(0.1) ? mutator.pick([1n, -1n, 8n, 2n ** 32n, 2n ** 53n, 2n ** 63n]) : 0n;
    const data = DATA_BYTES + (mutator.chance(0.1) ? mutator.pick([1, -1, -DATA_BYTES, 4096]) : 0);
    const bytes = fileBytes(header, BigInt(header.length) + lie, data);
    return mutator.chance(0.2) ? mutator.bytes(bytes) : bytes;
  }

  #json(value: unknown): Uint8Array<ArrayBuffer> {
    const { mutator } = this;
    const text = JSON.stringify(mutator.chance(0.9) ? mutator.json(value) : value);
    return encoder.encode(mutator.chance(0.3) ? mutator.text(text) : text);
  }
}

/**
 * A folder in which inputs are tried; a fuzzer writes every input, so the folder is in memory if the system has
 * such a place.
 */
export class FuzzFolder implements Disposable {
  readonly folder: string;

  /** `tensors`: the tensors that configs are checked against. */
  private constructor(readonly tensors: SafetensorsHeader["tensors"]) {
    const memory = "/dev/shm";
    const writable = Deno.build.os === "linux" && existsSync(memory);
    this.folder = Deno.makeTempDirSync(writable ? { dir: memory } : {});
    for (const name of ["a", "b"]) {
      const header = encoder.encode(JSON.stringify({ [name]: tensor("U8", [4], 0, 4) }));
      const file = join(this.folder, `${name === "a" ? 1 : 2}.safetensors`);
      Deno.writeFileSync(file, fileBytes(header, BigInt(header.length), 4));
    }
  }

  static async open(): Promise<FuzzFolder> {
    return new FuzzFolder((await readSafetensorsHeader(join(FIXTURE, CONFIGS[0]!, "model.safetensors"))).tensors);
  }

  /**
   * Whether the reader accepts the input. @throws anything that a reader must not throw, and an error if it
   * accepts an invalid input
   */
  async accepts({ target, bytes }: Input): Promise<boolean> {
    try {
      await this.#read(target, bytes);
      return true;
    } catch (error) {
      if (error instanceof PagesiftError && error.kind === "model" && !/[\n\r]/.test(error.message)) return false;
      throw error;
    }
  }

  async #read(target: Target, bytes: Uint8Array): Promise<void> {
    if (target === "config") return this.#readConfig(bytes);
    const file = join(this.folder, FILES[target]);
    Deno.writeFileSync(file, bytes);
    if (target === "tokenizer") return checkTokenizer(await Tokenizer.load(this.folder, { vocabSize: TOKENIZER_ROWS }));
    if (target === "gguf") return await readGgufFile(file, bytes.length, TEXT);
    if (target === "safetensors") return checkHeader(await readSafetensorsHeader(file), bytes.length);
    const { tensors } = await openCheckpoint(this.folder);
    const outside = [...tensors.values()].find((entry) => dirname(Deno.realPathSync(entry.file)) !== this.folder);
    if (outside) throw new Error(`Reads outside its folder: ${outside.file}`);
  }

  #readConfig(bytes: Uint8Array): void {
    let value: unknown;
    try {
      value = JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      throw new PagesiftError("model", "not JSON, which another reader refuses");
    }
    planWeights(parseModelConfig(value, "config.json"), this.tensors);
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.folder, { recursive: true });
  }
}

function existsSync(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false;
  }
}

/** Checks that an accepted tokenizer works and returns only ids with an embedding row. */
function checkTokenizer(tokenizer: Tokenizer): void {
  const ids = tokenizer.encode(TEXT);
  const outside = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= TOKENIZER_ROWS);
  if (outside !== undefined) throw new Error(`Accepts a tokenizer that returns the id ${outside}`);
  tokenizer.decode(ids);
}

/** Checks an accepted header: tensors lie inside the file, contiguously, each with the size of its shape. */
function checkHeader({ tensors, fileBytes }: SafetensorsHeader, written: number): void {
  let end = 0;
  for (const { name, offsetBytes, bytes, shape } of tensors.values()) {
    const count = shape.reduce((product, size) => product * size, 1);
    const inside = offsetBytes >= 8 && offsetBytes >= end && offsetBytes + bytes <= written;
    if (!inside || bytes < count || bytes > 8 * count) throw new Error(`Accepts the tensor "${name}" out of bounds`);
    end = offsetBytes + bytes;
  }
  if (fileBytes !== written || (tensors.size > 0 && end !== written)) throw new Error("Accepts a file of another size");
}
