/** The functions of shim.cpp. */

const SYMBOLS = {
  shim_load: { parameters: ["buffer", "buffer", "i32"], result: "pointer" },
  shim_quantize: { parameters: ["buffer", "buffer", "buffer", "i32"], result: "i32" },
  shim_system: { parameters: [], result: "pointer" },
  shim_vocabulary: { parameters: ["pointer"], result: "i32" },
  shim_open: { parameters: ["pointer", "i32", "i32", "i32", "i32", "i32"], result: "pointer" },
  shim_close: { parameters: ["pointer"], result: "void" },
  shim_threads: { parameters: ["pointer"], result: "i32" },
  shim_append: { parameters: ["pointer", "i32", "buffer", "i32"], result: "i32" },
  shim_decode: { parameters: ["pointer", "i32", "buffer", "i32"], result: "i32" },
  shim_logits: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  shim_tokenize: { parameters: ["pointer", "buffer", "i32", "buffer", "i32"], result: "i32" },
} as const;

/** Formats that llama.cpp writes, by its names, with its numbers. `_M` mixes two. */
export const FILE_TYPES = {
  ...{ Q8_0: 7, Q4_0: 2, Q4_1: 3, Q5_0: 8, Q5_1: 9, Q4_K_S: 14, Q4_K_M: 15, Q5_K_S: 16, Q5_K_M: 17, Q6_K: 18 },
} as const;
export type FileType = keyof typeof FILE_TYPES;

export const KV_TYPES = ["F16", "BF16", "F32"] as const;

/** One way of running the model. */
export interface ContextOptions {
  /** Tokens that fit into the context. */
  contextTokens: number;
  /** Tokens per prefill batch. */
  batchTokens: number;
  threads: number;
  flash: boolean;
  /** Dtype of keys and values. */
  kv: typeof KV_TYPES[number];
}

function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}

function check(status: number): void {
  if (status !== 0) throw new Error(`llama.cpp refused the tokens (${status})`);
}

/** Writes a model with quantised weights. @throws {Error} when llama.cpp cannot; it says why on stderr */
export function quantizeFile(shim: string, libraries: string, gguf: string, target: string, type: FileType): void {
  const { shim_quantize } = Deno.dlopen(shim, SYMBOLS).symbols;
  const status = shim_quantize(cString(libraries), cString(gguf), cString(target), FILE_TYPES[type]);
  if (status !== 0) throw new Error(`llama.cpp cannot quantise "${gguf}" to ${type} (${status})`);
}

/** A model that llama.cpp has loaded into this process, until the process ends. */
export class LoadedModel {
  readonly #symbols: Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];
  readonly #model: Deno.PointerObject;

  /** @throws {Error} if llama.cpp cannot read the file; it reports the reason on stderr */
  constructor(shim: string, libraries: string, gguf: string, gpu: boolean) {
    this.#symbols = Deno.dlopen(shim, SYMBOLS).symbols;
    const model = this.#symbols.shim_load(cString(libraries), cString(gguf), gpu ? -1 : 0);
    if (!model) throw new Error(`llama.cpp cannot load "${gguf}"`);
    this.#model = model;
  }

  /** Instruction sets and similar, as llama.cpp reports them. */
  system(): string {
    const text = this.#symbols.shim_system();
    return text ? new Deno.UnsafePointerView(text).getCString().trim() : "";
  }

  open({ contextTokens, batchTokens, threads, flash, kv }: ContextOptions): LoadedContext {
    const type = KV_TYPES.indexOf(kv);
    const context = this.#symbols.shim_open(this.#model, contextTokens, batchTokens, threads, flash ? 1 : 0, type);
    if (!context) throw new Error(`llama.cpp cannot open a context of ${contextTokens} tokens with ${kv}`);
    return new LoadedContext(this.#symbols, context, this.#symbols.shim_vocabulary(this.#model));
  }

  tokenize(text: string): number[] {
    const bytes = new TextEncoder().encode(text);
    const ids = new Int32Array(bytes.length);
    const count = this.#symbols.shim_tokenize(this.#model, bytes, bytes.length, ids, ids.length);
    if (count < 0) throw new Error("llama.cpp cannot tokenize the text");
    return [...ids.subarray(0, count)];
  }
}

/** One sequence of a loaded model. */
export class LoadedContext {
  constructor(
    readonly symbols: Deno.DynamicLibrary<typeof SYMBOLS>["symbols"],
    readonly pointer: Deno.PointerObject,
    readonly vocabulary: number,
  ) {}

  get threads(): number {
    return this.symbols.shim_threads(this.pointer);
  }

  /** Appends ids after the first `at` tokens, in batches. */
  append(at: number, ids: readonly number[]): void {
    check(this.symbols.shim_append(this.pointer, at, Int32Array.from(ids), ids.length));
  }

  /** The same, one id per step. */
  decode(at: number, ids: readonly number[]): void {
    check(this.symbols.shim_decode(this.pointer, at, Int32Array.from(ids), ids.length));
  }

  /** Logits of the last id, `[V]`. */
  logits(): Float32Array {
    const out = new Float32Array(this.vocabulary);
    check(this.symbols.shim_logits(this.pointer, out, out.length));
    return out;
  }

  close(): void {
    this.symbols.shim_close(this.pointer);
  }
}
