/** A `tokenizer.json` of byte-level or SentencePiece kind as GGUF metadata. */
import { join } from "@std/path";
import type { ModelConfig } from "../../../engine/folder/config.ts";
import { isJsonObject, type JsonObject, readJsonFile } from "../../../engine/folder/json_file.ts";
import type { MetaValue } from "./file.ts";

/** Kinds of tokens. */
const NORMAL = 1, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6;

const LETTERS_AND_REST = String.raw`| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const LETTERS = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|`;
/** The patterns that split text before the merges, and llama.cpp's name of each. */
const PRE_TOKENIZERS: Readonly<Record<string, string>> = {
  [String.raw`${LETTERS}\p{N}${LETTERS_AND_REST}`]: "qwen2",
  [String.raw`${LETTERS}\p{N}{1,3}${LETTERS_AND_REST}`]: "llama-bpe",
};

/** The tokenizer's metadata, and a message about what is missing. */
export interface GgufTokenizer {
  fields: Map<string, MetaValue>;
  /** Undefined if llama.cpp splits text as we do. */
  missing?: string;
}

/** llama.cpp's name of a pre-tokenizer; undefined if it has none. */
export function preTokenizerName(pre: unknown): string | undefined {
  if (!isJsonObject(pre)) return undefined;
  const parts = Array.isArray(pre["pretokenizers"]) ? pre["pretokenizers"].filter(isJsonObject) : [pre];
  const [first, second] = parts;
  if (parts.length === 1 && first?.["type"] === "ByteLevel" && first["use_regex"] !== false) return "gpt-2";
  const pattern = isJsonObject(first?.["pattern"]) ? first["pattern"]["Regex"] : undefined;
  const isByteLevel = parts.length === 2 && second?.["type"] === "ByteLevel" && second["use_regex"] === false;
  return isByteLevel && typeof pattern === "string" ? PRE_TOKENIZERS[pattern] : undefined;
}

/** Texts and kinds of all ids of the model; ids that the tokenizer lacks get a generated name. */
function listTokens(json: JsonObject, vocabSize: number): { texts: string[]; kinds: number[] } {
  const texts = Array.from({ length: vocabSize }, (_, id) => `[PAD${id}]`);
  const kinds = new Array<number>(vocabSize).fill(UNUSED);
  const set = (id: unknown, text: string, kind: number): void => {
    if (typeof id !== "number" || id >= vocabSize) return;
    texts[id] = text;
    kinds[id] = kind;
  };
  const model = isJsonObject(json["model"]) ? json["model"] : {};
  for (const [text, id] of Object.entries(model["vocab"] ?? {})) set(id, text, NORMAL);
  const added = Array.isArray(json["added_tokens"]) ? json["added_tokens"].filter(isJsonObject) : [];
  for (const { id, content, special } of added) set(id, String(content), special === true ? CONTROL : USER_DEFINED);
  return { texts, kinds };
}

function listMerges(json: JsonObject): string[] {
  const merges = isJsonObject(json["model"]) ? json["model"]["merges"] : [];
  return Array.isArray(merges) ? merges.map((merge) => Array.isArray(merge) ? merge.join(" ") : String(merge)) : [];
}

function byteLevel(json: JsonObject, pre: string): [string, MetaValue][] {
  return [
    ["tokenizer.ggml.model", { text: "gpt2" }],
    ["tokenizer.ggml.pre", { text: pre }],
    ["tokenizer.ggml.merges", { texts: listMerges(json) }],
  ];
}

/** Merges as scores: SentencePiece joins what has the best one. Undefined for a tokenizer of another kind. */
function sentencePiece(json: JsonObject, texts: readonly string[], kinds: number[]): [string, MetaValue][] | undefined {
  const model = isJsonObject(json["model"]) ? json["model"] : {};
  if ((json["pre_tokenizer"] ?? null) !== null || model["byte_fallback"] !== true) return undefined;
  const ranks = new Map<string, number>();
  for (const [rank, merge] of listMerges(json).entries()) {
    const whole = merge.replace(" ", "");
    if (!ranks.has(whole)) ranks.set(whole, rank);
  }
  texts.forEach((text, id) => {
    if (kinds[id] === NORMAL && /^<0x[0-9A-F]{2}>$/.test(text)) kinds[id] = BYTE;
  });
  return [
    ["tokenizer.ggml.model", { text: "llama" }],
    ["tokenizer.ggml.scores", { f32s: texts.map((text) => -(ranks.get(text) ?? ranks.size)) }],
    ["tokenizer.ggml.add_space_prefix", { bool: JSON.stringify(json["normalizer"] ?? null).includes('"Prepend"') }],
  ];
}

/** Reads the folder's tokenizer. Where llama.cpp has no equal, the file gets none: it then takes token ids only. */
export async function tokenizerMetadata(folder: string, config: ModelConfig): Promise<GgufTokenizer> {
  const without = (missing: string): GgufTokenizer => ({
    fields: new Map([["tokenizer.ggml.model", { text: "none" }]]),
    missing: `${missing}: the file has no tokenizer and takes token ids only`,
  });
  const json = await readJsonFile(join(folder, "tokenizer.json"));
  if (!json) return without('No "tokenizer.json"');
  const pre = preTokenizerName(json["pre_tokenizer"]);
  const { texts, kinds } = listTokens(json, config.vocabSize);
  const model = pre === undefined ? sentencePiece(json, texts, kinds) : byteLevel(json, pre);
  if (model === undefined) return without("llama.cpp has no pre-tokenizer that is known to be this one");
  const fields = new Map<string, MetaValue>([
    ...model,
    ["tokenizer.ggml.tokens", { texts }],
    ["tokenizer.ggml.token_type", { i32s: kinds }],
    ["tokenizer.ggml.add_bos_token", { bool: false }],
  ]);
  const [eos] = config.eosTokenIds;
  if (eos !== undefined) fields.set("tokenizer.ggml.eos_token_id", { u32: eos });
  if (config.bosTokenId !== undefined) fields.set("tokenizer.ggml.bos_token_id", { u32: config.bosTokenId });
  return { fields };
}
