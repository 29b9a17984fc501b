import type { JsonObject } from "../folder/json_file.ts";

/** How text is cut before merges: the parts of a `tokenizer.json` that one name in a GGUF file stands for. */
export interface PreTokenizer {
  readonly steps: readonly JsonObject[];
  readonly normalizer: JsonObject | null;
  /** Whether a word that is a token is taken whole, whatever merges would make of it. */
  readonly ignoreMerges: boolean;
  /** Whether BOS goes before a text where the file does not say. */
  readonly addsBos: boolean;
}

/** The steps in front of the bytes. */
function split(...patterns: string[]): JsonObject[] {
  return patterns.map((Regex) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false }));
}

function byteLevel(usesRegex: boolean): JsonObject {
  return { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: usesRegex };
}

function preTokenizer(patterns: string[], options: Partial<PreTokenizer> = {}): PreTokenizer {
  const steps = [...split(...patterns), byteLevel(false)];
  return { steps, normalizer: null, ignoreMerges: false, addsBos: false, ...options };
}

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const REST = String.raw`\s*[\r\n]+|\s+(?!\S)|\s+`;
const WORDS = String.raw`${CONTRACTIONS}|[^\r\n\p{L}\p{N}]?\p{L}+`;
const SIGNS = String.raw` ?[^\s\p{L}\p{N}]+[\r\n]*`;
const UPPER = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
const LOWER = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;
const HEAD = String.raw`[^\r\n\p{L}\p{N}]?`;
const SIGNS_OR_SLASH = String.raw` ?[^\s\p{L}\p{N}]+[\r\n/]*`;

const GPT2: PreTokenizer = { ...preTokenizer([]), steps: [byteLevel(true)] };
const DIGITS: PreTokenizer = { ...preTokenizer([]), steps: [...split(String.raw`\p{N}`), byteLevel(true)] };
const LLAMA3 = preTokenizer([`${WORDS}|${String.raw`\p{N}{1,3}`}|${SIGNS}|${REST}`], {
  ignoreMerges: true,
  addsBos: true,
});
const SPLIT_LIKE_LLAMA3: PreTokenizer = { ...LLAMA3, ignoreMerges: false, addsBos: false };
const QWEN2 = preTokenizer([`${WORDS}|${String.raw`\p{N}`}|${SIGNS}|${REST}`], { normalizer: { type: "NFC" } });
const DEFAULT = preTokenizer([
  String.raw`[\p{P}\$\+<=>\^~\|]+`,
  String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`,
  String.raw`\p{N}+`,
  "[0-9][0-9][0-9]",
]);
/** Letters with an upper and a lower case. */
const CASED = "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ" +
  "Ὗ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚ" +
  "ａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃";
const DEEPSEEK_LLM = preTokenizer([
  String.raw`[\r\n]`,
  String.raw`\s?[${CASED}]+`,
  String.raw`\s?[!-/:-~！-／：-～‘-‟　-。]+`,
  String.raw`\s+$`,
  "[一-龥ࠀ-一가-퟿]+",
  String.raw`\p{N}+`,
]);
const DEEPSEEK_CODER = preTokenizer([
  String.raw`[\r\n]`,
  String.raw`\s?\p{L}+`,
  String.raw`\s?\p{P}+`,
  "[一-龥ࠀ-一가-퟿]+",
  String.raw`\p{N}`,
]);
const DEEPSEEK_V3 = preTokenizer([
  String.raw`\p{N}{1,3}`,
  "[一-龥぀-ゟ゠-ヿ]+",
  String.raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_${"`"}{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+` +
  String.raw`| ?[\p{P}\p{S}]+[\r\n]*|${REST}`,
]);
const TEKKEN = preTokenizer([
  String.raw`${HEAD}${UPPER}*${LOWER}+|${HEAD}${UPPER}+${LOWER}*|\p{N}|${SIGNS_OR_SLASH}|${REST}`,
], { ignoreMerges: true, addsBos: true });
const GPT_4O = preTokenizer([
  String.raw`${HEAD}${UPPER}*${LOWER}+${CONTRACTIONS}?|${HEAD}${UPPER}+${LOWER}*${CONTRACTIONS}?` +
  String.raw`|\p{N}{1,3}|${SIGNS_OR_SLASH}|${REST}`,
], { ignoreMerges: true });

/** The supported values of `tokenizer.ggml.pre`. */
const PRE_TOKENIZERS: Readonly<Record<string, PreTokenizer>> = {
  "default": DEFAULT,
  "gpt-2": GPT2,
  "phi-2": GPT2,
  "mpt": GPT2,
  "olmo": GPT2,
  "granite-docling": GPT2,
  "smollm": DIGITS,
  "starcoder": DIGITS,
  "refact": DIGITS,
  "command-r": DIGITS,
  "minerva-7b": DIGITS,
  "llama-bpe": LLAMA3,
  "llama3": LLAMA3,
  "llama-v3": LLAMA3,
  "falcon3": LLAMA3,
  "dbrx": SPLIT_LIKE_LLAMA3,
  "smaug-bpe": SPLIT_LIKE_LLAMA3,
  "qwen2": QWEN2,
  "deepseek-r1-qwen": { ...QWEN2, normalizer: null },
  "deepseek-llm": DEEPSEEK_LLM,
  "deepseek-coder": DEEPSEEK_CODER,
  "deepseek-v3": DEEPSEEK_V3,
  "tekken": TEKKEN,
  "gpt-4o": GPT_4O,
  "llama4": GPT_4O,
  "kanana2": GPT_4O,
};

/** Names of the supported values of `tokenizer.ggml.pre`. */
export const PRE_TOKENIZER_NAMES: readonly string[] = Object.keys(PRE_TOKENIZERS);

/** The pre-tokenizer of a name; undefined where it is not supported. */
export function preTokenizerOf(name: string): PreTokenizer | undefined {
  return Object.hasOwn(PRE_TOKENIZERS, name) ? PRE_TOKENIZERS[name] : undefined;
}
