/**
 * Which features of `tokenizer.json` the tokenizers library gets right. It was compared with the Rust library on small tokenizers, one for
 * each feature (tests/fixtures/tokenizers); what differs there is refused by name, or rewritten to what means the same.
 */
import { isJsonObject, type JsonObject, quote } from "../folder/json_file.ts";

/** Parts that contain others of their kind, by the name of the list. */
const LISTS = ["normalizers", "pretokenizers", "processors", "decoders"];

/** Types that are right, with every option that {@link optionProblem} lets pass. */
const NORMALIZERS = new Set([
  "Sequence",
  "NFC",
  "NFD",
  "NFKC",
  "NFKD",
  "Lowercase",
  "StripAccents",
  "Replace",
  "Prepend",
]);
const PRE_TOKENIZERS = new Set(["Sequence", "ByteLevel", "Metaspace", "Split", "Digits", "Punctuation"]);
const POST_PROCESSORS = new Set(["Sequence", "ByteLevel", "TemplateProcessing", "BertProcessing", "RobertaProcessing"]);
const DECODERS = new Set(["Sequence", "ByteLevel", "ByteFallback", "Fuse", "Metaspace", "Strip", "Replace"]);

/** The first feature that would be read differently, as in `the pre-tokenizer "Split" with "invert"`; undefined when all are right. */
export function unsupportedFeature(definition: JsonObject): string | undefined {
  const kinds = [
    ["normalizer", NORMALIZERS, definition.normalizer],
    ["pre-tokenizer", PRE_TOKENIZERS, definition.pre_tokenizer],
    ["post-processor", POST_PROCESSORS, definition.post_processor],
    ["decoder", DECODERS, definition.decoder],
  ] as const;
  for (const [kind, known, part] of kinds) {
    for (const step of stepsOf(part)) {
      if (typeof step.type !== "string") continue; // named by the check of parts
      if (!known.has(step.type)) return `the ${kind} ${quote(step.type)}`;
      const option = kind === "pre-tokenizer" ? optionProblem(step) : undefined;
      if (option !== undefined) return `the ${kind} "${step.type}" with ${option}`;
    }
  }
  return isJsonObject(definition.model) ? modelProblem(definition.model) : undefined;
}

function stepsOf(part: unknown): JsonObject[] {
  if (!isJsonObject(part)) return [];
  const inner = LISTS.map((name) => part[name]).filter(Array.isArray).flat();
  return [part, ...inner.flatMap(stepsOf)];
}

function optionProblem({ type, behavior, invert }: JsonObject): string | undefined {
  if (type === "Punctuation" && (behavior === "Removed" || behavior === "MergedWithNext")) {
    return `the behaviour ${quote(behavior)}`;
  }
  if (type !== "Split") return undefined;
  if (invert === true && behavior !== "Removed") return '"invert"';
  return behavior === "Contiguous" ? 'the behaviour "Contiguous"' : undefined;
}

function modelProblem(model: JsonObject): string | undefined {
  if (model.type === "Unigram") {
    return model.byte_fallback === true ? 'a Unigram model with "byte_fallback"' : undefined;
  }
  for (const name of ["continuing_subword_prefix", "end_of_word_suffix"]) {
    if ((model[name] ?? "") !== "") return `a BPE model with "${name}"`;
  }
  return typeof model.dropout === "number" && model.dropout > 0 ? 'a BPE model with "dropout"' : undefined;
}

/** Whether a BPE model leaves out characters that its vocabulary lacks: it has neither an unknown token nor bytes for them. */
export function dropsCharacters({ model, pre_tokenizer: preTokenizer }: JsonObject): boolean {
  if (!isJsonObject(model) || model.type === "Unigram") return false;
  if ((model.unk_token ?? null) !== null || model.byte_fallback === true) return false;
  return !stepsOf(preTokenizer).some(({ type }) => type === "ByteLevel");
}

/** The definition with what the library gets wrong written in another way that means the same. */
export function rewritten(definition: JsonObject): JsonObject {
  return {
    ...definition,
    pre_tokenizer: mapSteps(definition.pre_tokenizer, (step) => splitAtNumbers(splitByRegex(step))),
    decoder: mapSteps(definition.decoder, plainMetaspace),
  };
}

function mapSteps(part: unknown, work: (step: JsonObject) => JsonObject): unknown {
  if (!isJsonObject(part)) return part;
  const lists = LISTS.filter((name) => Array.isArray(part[name])).map((name) => [
    name,
    (part[name] as unknown[]).map((step) => mapSteps(step, work)),
  ]);
  return work({ ...part, ...Object.fromEntries(lists) });
}

/** The library removes no separator that is a plain string. */
function splitByRegex(step: JsonObject): JsonObject {
  const { type, pattern } = step;
  if (type !== "Split" || !isJsonObject(pattern) || typeof pattern.String !== "string") return step;
  return { ...step, pattern: { Regex: pattern.String.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&") } };
}

/** The library knows the digits 0 to 9 only, where the Rust library takes every numeric character, as in "½". */
function splitAtNumbers(step: JsonObject): JsonObject {
  if (step.type !== "Digits") return step;
  const Regex = step.individual_digits === true ? "\\p{N}" : "\\p{N}+";
  return { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false };
}

/** The library takes the first space of a text away, whatever the prepend scheme says. */
function plainMetaspace(step: JsonObject): JsonObject {
  if (step.type !== "Metaspace" || step.prepend_scheme !== "never") return step;
  return { type: "Replace", pattern: { String: step.replacement ?? "▁" }, content: " " };
}
