import { PagesiftError } from "../errors.ts";
import { ConfigFields } from "../folder/config_fields.ts";
import { type JsonObject, shorten } from "../folder/json_file.ts";
import { ChatTemplate } from "../text/chat_template.ts";
import { specialTexts, Tokenizer, type TokenizerOptions } from "../text/tokenizer.ts";
import { checkDefinition } from "../text/tokenizer_files.ts";
import type { Notice } from "../types.ts";
import type { GgufHeader } from "./header.ts";
import { PRE_TOKENIZER_NAMES, type PreTokenizer, preTokenizerOf } from "./pre_tokenizers.ts";
import { mergesOfScores } from "./score_merges.ts";

/** Kinds of tokens, as `tokenizer.ggml.token_type` numbers them. */
export const TOKEN_KINDS = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

const PREFIX = "tokenizer.ggml.";
const MODELS = ["gpt2", "llama"];
/** Tokens that end an answer besides EOS, where they are control tokens of the file. */
const TURN_ENDS = new Set([
  ...["<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>"],
  ...["<EOT>", "<|end_of_text|>", "<end_of_utterance>", "<eos>"],
]);
const END_FIELDS = ["eos_token_id", "eot_token_id", "eom_token_id"];
const SPACE = "▁";
const PLAIN_IN_PHI3 = new Set(["<unk>", "<s>", "<|endoftext|>"]);

/** What the metadata says of tokens, checked. */
interface Vocabulary {
  readonly fields: ConfigFields;
  readonly tokens: readonly string[];
  /** Of each token; undefined where all are plain. */
  readonly kinds: readonly number[] | undefined;
}

/** The tokenizer in a file's metadata, with its chat template. Throws "model" errors that name the field. */
export function ggufTokenizer(header: GgufHeader, options: TokenizerOptions = {}): Tokenizer {
  const { file } = header;
  const { definition, config, notices } = ggufTokenizerFiles(header);
  const checked = checkDefinition(definition, file, options.vocabSize ?? Infinity);
  const files = { definition: checked.definition, config, notices: [...notices, ...checked.notices] };
  return Tokenizer.make(files, chatTemplateOf(header, config), file, options);
}

/** What `tokenizer.json` and `tokenizer_config.json` of the same model contain. Throws "model" errors that name the field. */
export function ggufTokenizerFiles(
  header: GgufHeader,
): { definition: JsonObject; config: JsonObject; notices: readonly Notice[] } {
  const vocabulary = readVocabulary(header);
  const { fields } = vocabulary;
  const model = fields.text("model");
  if (!MODELS.includes(model)) fields.refuse("model", `one of ${MODELS.join(", ")}`);
  const notices: Notice[] = [];
  const definition = model === "gpt2"
    ? byteLevelDefinition(vocabulary, findPreTokenizer(fields, notices))
    : sentencePieceDefinition(vocabulary, isPhi3(header));
  return { definition, config: specialTokens(vocabulary), notices };
}

/** Ids of the tokens that end an answer, and the id of BOS where the metadata has one. */
export function ggufEndTokens(header: GgufHeader): { eosTokenIds: readonly number[]; bosTokenId?: number } {
  const { fields, tokens, kinds } = readVocabulary(header);
  const named = END_FIELDS.flatMap((name) => idOf(fields, name, tokens) ?? []);
  const others = tokens.flatMap((text, id) => kinds?.[id] === TOKEN_KINDS.control && TURN_ENDS.has(text) ? [id] : []);
  const bosTokenId = idOf(fields, "bos_token_id", tokens);
  return { eosTokenIds: [...new Set([...named, ...others])], ...bosTokenId !== undefined && { bosTokenId } };
}

function readVocabulary({ metadata, file }: GgufHeader): Vocabulary {
  const own = [...metadata].filter(([key]) => key.startsWith(PREFIX));
  const json = Object.fromEntries(own.map(([key, value]) => [key.slice(PREFIX.length), value]));
  const fields = new ConfigFields(json, file, (name) => PREFIX + name);
  const tokens = fields.list("tokens", "a list of texts", (item) => typeof item === "string");
  if (tokens.length === 0) fields.refuse("tokens", "a list of texts");
  return { fields, tokens, kinds: numbersOf(fields, "token_type", tokens.length) };
}

/** A number for each token; undefined where the field is missing. */
function numbersOf(fields: ConfigFields, name: string, count: number): readonly number[] | undefined {
  if (!fields.has(name)) return undefined;
  const expected = `a list of ${count} numbers, one for each token`;
  const numbers = fields.list(name, expected, (item) => typeof item === "number");
  return numbers.length === count ? numbers : fields.refuse(name, expected);
}

function idOf(fields: ConfigFields, name: string, tokens: readonly string[]): number | undefined {
  // Some files write the largest number for "none".
  const id = fields.json[name];
  return typeof id === "number" && id >= tokens.length
    ? undefined
    : fields.optionalCount(name, { min: 0, max: 2 ** 31 });
}

/** A missing name means an old file, whose words may be cut otherwise than the model learned them. */
function findPreTokenizer(fields: ConfigFields, notices: Notice[]): PreTokenizer {
  if (!fields.has("pre")) {
    const text = `"${fields.file}" does not say how its tokenizer cuts words ("${fields.label("pre")}"); ` +
      "the default is used, and answers may be worse; convert the model again";
    notices.push({ level: "warning", text });
  }
  const name = fields.text("pre", "default");
  return preTokenizerOf(name) ?? fields.refuse("pre", `one of ${PRE_TOKENIZER_NAMES.join(", ")}`);
}

/** Id of every token that a text can contain. Throws where two have the same text. */
function vocabularyOf({ fields, tokens, kinds }: Vocabulary): Record<string, number> {
  const vocab = new Map<string, number>();
  for (const [id, text] of tokens.entries()) {
    if (kinds?.[id] === TOKEN_KINDS.unused) continue;
    const other = vocab.get(text);
    if (other === undefined) vocab.set(text, id);
    else {
      const problem = `has the token "${shorten(text)}" twice, as ${other} and ${id}`;
      throw new PagesiftError("model", `Field "${fields.label("tokens")}" of "${fields.file}" ${problem}`);
    }
  }
  return Object.fromEntries(vocab);
}

/** Control tokens, and texts that are one token wherever they stand. Those that `strips` accepts take white space behind them away. */
function addedTokens({ tokens, kinds }: Vocabulary, strips = (_: string): boolean => false): JsonObject[] {
  return tokens.flatMap((content, id) => {
    const kind = kinds?.[id];
    const special = kind === TOKEN_KINDS.control || kind === TOKEN_KINDS.unknown;
    if (!special && kind !== TOKEN_KINDS.userDefined) return [];
    const rstrip = strips(content);
    return [{ id, content, special, normalized: false, single_word: false, lstrip: false, rstrip }];
  });
}

function byteLevelDefinition(vocabulary: Vocabulary, pre: PreTokenizer): JsonObject {
  const merges = vocabulary.fields.list("merges", "a list of texts", (item) => typeof item === "string");
  return {
    added_tokens: addedTokens(vocabulary),
    normalizer: pre.normalizer,
    pre_tokenizer: { type: "Sequence", pretokenizers: pre.steps },
    post_processor: frameOf(vocabulary, pre.addsBos),
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: "BPE", vocab: vocabularyOf(vocabulary), merges, ignore_merges: pre.ignoreMerges },
  };
}

/** SentencePiece joins the two pieces whose whole has the best score, which is a list of merges in the order of scores. */
function sentencePieceDefinition(vocabulary: Vocabulary, stripsSpaces: boolean): JsonObject {
  const { fields, tokens, kinds } = vocabulary;
  const scores = numbersOf(fields, "scores", tokens.length) ?? fields.refuse("scores", "a list of numbers");
  const hasBytes = kinds?.includes(TOKEN_KINDS.byte) === true;
  const addsSpace = fields.flag("add_space_prefix", true);
  const isPiece = (id: number): boolean => (kinds?.[id] ?? TOKEN_KINDS.normal) === TOKEN_KINDS.normal;
  const spaces = { type: "Replace", pattern: { String: " " }, content: SPACE };
  const unknown = tokens[idOf(fields, "unknown_token_id", tokens) ?? 0];
  return {
    added_tokens: addedTokens(vocabulary, (text) => stripsSpaces && !PLAIN_IN_PHI3.has(text)),
    normalizer: addsSpace ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: SPACE }, spaces] } : spaces,
    pre_tokenizer: null,
    post_processor: frameOf(vocabulary, true),
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: SPACE }, content: " " },
        ...hasBytes ? [{ type: "ByteFallback" }] : [],
        { type: "Fuse" },
        ...addsSpace ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : [],
      ],
    },
    model: {
      type: "BPE",
      vocab: vocabularyOf(vocabulary),
      merges: mergesOfScores(tokens, scores, isPiece),
      unk_token: unknown,
      fuse_unk: true,
      byte_fallback: hasBytes,
    },
  };
}

/** Phi-3's tokens take white space behind them away, which the metadata cannot say; its template puts a line break there. */
function isPhi3({ metadata }: GgufHeader): boolean {
  return metadata.get("general.architecture") === "phi3";
}

/** What goes before and after a text. */
function frameOf({ fields, tokens }: Vocabulary, addsBos: boolean): JsonObject | null {
  const token = (flag: string, name: string, fallback: boolean): string[] => {
    if (!fields.flag(flag, fallback)) return [];
    const id = idOf(fields, name, tokens);
    return id === undefined ? [] : [tokens[id] ?? ""];
  };
  const [before, after] = [
    token("add_bos_token", "bos_token_id", addsBos),
    token("add_eos_token", "eos_token_id", false),
  ];
  if (before.length + after.length === 0) return null;
  const special = (id: string): JsonObject => ({ SpecialToken: { id, type_id: 0 } });
  const single = [...before.map(special), { Sequence: { id: "A", type_id: 0 } }, ...after.map(special)];
  const entries = [...before, ...after].map((id) => [id, { id, ids: [tokens.indexOf(id)], tokens: [id] }]);
  return { type: "TemplateProcessing", single, pair: single, special_tokens: Object.fromEntries(entries) };
}

/** As `tokenizer_config.json` names them. */
function specialTokens({ fields, tokens }: Vocabulary): JsonObject {
  const names = { bos_token: "bos_token_id", eos_token: "eos_token_id", unk_token: "unknown_token_id" };
  const all = Object.entries({ ...names, pad_token: "padding_token_id" });
  return Object.fromEntries(all.flatMap(([theirs, ours]) => {
    const id = idOf(fields, ours, tokens);
    return id === undefined ? [] : [[theirs, tokens[id]]];
  }));
}

function chatTemplateOf(header: GgufHeader, config: JsonObject): ChatTemplate | undefined {
  const source = ggufChatTemplate(header);
  return source === "" ? undefined : new ChatTemplate(source, header.file, specialTexts(config));
}

/** The chat template in a file's metadata; empty where there is none. Throws a "model" error. */
export function ggufChatTemplate({ metadata, file }: GgufHeader): string {
  return new ConfigFields(Object.fromEntries(metadata), file).text("tokenizer.chat_template", "");
}
