import type { AddedToken } from "./added_tokens.ts";
import { PagesiftError } from "../errors.ts";
import { isJsonObject, type JsonObject, quote, readJsonFile } from "../folder/json_file.ts";
import type { Notice } from "../types.ts";
import { rewritten, unsupportedFeature } from "./tokenizer_features.ts";
import { findPartProblem } from "./tokenizer_guard.ts";

/** The parts of `tokenizer.json` that we read ourselves; the tokenizers library reads the rest. */
export interface TokenizerDefinition extends JsonObject {
  added_tokens: AddedToken[];
  model: JsonObject & { type: string };
}

/** Both files of a model's tokenizer, checked. */
export interface TokenizerFiles {
  definition: TokenizerDefinition;
  /** `tokenizer_config.json`, with the special tokens that only `special_tokens_map.json` has. */
  config: JsonObject;
  notices: readonly Notice[];
}

/** Parts that the library requires but `tokenizer.json` may leave out. */
const OPTIONAL_PARTS = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
const NAMES_IN_MESSAGE = 8;
const MODEL_TYPES = ["BPE", "Unigram"];

/**
 * Reads `tokenizer.json` and `tokenizer_config.json` of `folder`. `vocabSize` is the number of embedding rows; more rows
 * than tokens are legal. Throws "model" errors that name the file and the part.
 */
export async function readTokenizerFiles(folder: string, vocabSize = Infinity): Promise<TokenizerFiles> {
  const file = `${folder}/tokenizer.json`;
  const json = await readJsonFile(file);
  if (json === undefined) {
    throw new PagesiftError("model", `No "tokenizer.json" in "${folder}": download the whole model folder`);
  }
  const { definition, notices } = checkDefinition(json, file, vocabSize);
  const map = await readJsonFile(`${folder}/special_tokens_map.json`) ?? {};
  const config = await readJsonFile(`${folder}/tokenizer_config.json`) ?? {};
  // What the configuration leaves out or has as null, the map may have.
  const named = Object.entries(map).filter(([name]) => (config[name] ?? null) === null);
  return { definition, config: { ...config, ...Object.fromEntries(named) }, notices };
}

/** Checks what `tokenizer.json` contains; `origin` is for messages. Throws "model" errors. */
export function checkDefinition(
  json: JsonObject,
  origin: string,
  vocabSize: number,
): Pick<TokenizerFiles, "definition" | "notices"> {
  const definition = checked(json, vocabSize, (problem) => {
    throw new PagesiftError("model", `Cannot use "${origin}": ${problem}`);
  });
  return { definition, notices: rowlessNotices(definition.added_tokens, vocabSize) };
}

/** Added tokens may lack an embedding row, as a `<pad>` that only training used; a prompt with one is refused. */
function rowlessNotices(added: readonly AddedToken[], vocabSize: number): Notice[] {
  const rowless = added.filter(({ id }) => id >= vocabSize);
  if (rowless.length === 0) return [];
  const names = rowless.slice(0, NAMES_IN_MESSAGE).map(({ content }) => quote(content)).join(", ");
  const more = rowless.length > NAMES_IN_MESSAGE ? ` and ${rowless.length - NAMES_IN_MESSAGE} more` : "";
  const text = `Ignored added tokens of tokenizer.json for which the model has no embedding row: ${names}${more}`;
  return [{ level: "warning", text }];
}

/** Reports a problem by throwing. */
type Fail = (problem: string) => never;

function checked(json: JsonObject, vocabSize: number, fail: Fail): TokenizerDefinition {
  const model = isJsonObject(json.model) ? json.model : fail('"model" is missing; download the file again');
  // Files of old releases of the Rust library name no type; those with merges are BPE.
  const type = model.type ?? (Array.isArray(model.merges) ? "BPE" : undefined);
  if (typeof type !== "string" || !MODEL_TYPES.includes(type)) {
    return fail(`the model type is ${quote(type)}, expected one of "${MODEL_TYPES.join('", "')}"`);
  }
  checkParts(json, fail);
  const feature = unsupportedFeature(json);
  if (feature !== undefined) fail(`it has ${feature}, which is not supported; use another model`);
  const ids = type === "BPE" ? checkBpe(model, fail) : checkUnigram(model, fail);
  const added = checkAddedTokens(json.added_tokens ?? [], fail);
  const addedIds = new Set(added.map(({ id }) => id));
  const largest = ids.reduce((max, id) => addedIds.has(id) ? max : Math.max(max, id), -1);
  if (largest >= vocabSize) {
    fail(`it has token ids up to ${largest}, but the model has ${vocabSize} embedding rows; use the model's own file`);
  }
  return { ...rewritten({ ...OPTIONAL_PARTS, ...json }), added_tokens: added, model: { ...model, type } };
}

/** The vocabulary contains no parts and is long, so it is skipped. */
function checkParts({ normalizer, pre_tokenizer, post_processor, decoder }: JsonObject, fail: Fail): void {
  const problem = findPartProblem([normalizer, pre_tokenizer, post_processor, decoder]);
  if (problem !== undefined) fail(problem);
}

/** The ids of a BPE vocabulary whose merges build tokens of that vocabulary from others of it. */
function checkBpe(model: JsonObject, fail: Fail): number[] {
  const { vocab, merges, continuing_subword_prefix: prefix } = model;
  if (!isJsonObject(vocab)) return fail('"model.vocab" is missing; download the file again');
  if (!Array.isArray(merges)) return fail('"model.merges" is missing; download the file again');
  const prefixLength = typeof prefix === "string" ? prefix.length : 0;
  merges.forEach((merge, index) => {
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    if (!isPair(pair)) fail(`merge ${index} is ${quote(merge)}, expected two tokens; download the file again`);
    const [left, right] = pair;
    const unknown = [left, right, left + right.slice(prefixLength)].find((token) => !Object.hasOwn(vocab, token));
    if (unknown !== undefined) fail(`merge ${index} needs ${quote(unknown)}, which the vocabulary lacks`);
  });
  return Object.entries(vocab).map(([token, id]) => checkId(id, token, fail));
}

function isPair(value: unknown): value is [string, string] {
  return Array.isArray(value) && value.length === 2 && value.every((part) => typeof part === "string");
}

function checkUnigram(model: JsonObject, fail: Fail): number[] {
  const { vocab } = model;
  const isEntry = (entry: unknown): boolean =>
    Array.isArray(entry) && typeof entry[0] === "string" && typeof entry[1] === "number";
  if (!Array.isArray(vocab) || !vocab.every(isEntry)) {
    return fail('"model.vocab" is no list of tokens and scores; download the file again');
  }
  return [...vocab.keys()];
}

function checkAddedTokens(tokens: unknown, fail: Fail): AddedToken[] {
  if (!Array.isArray(tokens)) return fail('"added_tokens" is no list; download the file again');
  return tokens.map((token, index) => {
    if (!isJsonObject(token) || typeof token.content !== "string") {
      return fail(`added token ${index} has no "content"; download the file again`);
    }
    return { ...token, content: token.content, id: checkId(token.id, token.content, fail) };
  });
}

function checkId(id: unknown, token: string, fail: Fail): number {
  if (typeof id === "number" && Number.isInteger(id) && id >= 0 && id < 2 ** 31) return id;
  return fail(`token ${quote(token)} has the id ${quote(id)}, expected an integer of at least 0`);
}
