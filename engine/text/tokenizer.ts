import { Tokenizer as Library } from "@huggingface/tokenizers";
import { type AddedToken, AddedTokenSplitter } from "./added_tokens.ts";
import { type ChatMessage, type ChatTemplate, findChatTemplate } from "./chat_template.ts";
import { PagesiftError, reasonOf } from "../errors.ts";
import { isJsonObject, type JsonObject, shorten } from "../folder/json_file.ts";
import { SpecialGuard } from "./special_guard.ts";
import { TextStream, type TokenDecoder } from "./text_stream.ts";
import { TimeLimitError, withTimeLimit } from "./time_limit.ts";
import { TokenEncoder } from "./token_encoder.ts";
import type { Notice } from "../types.ts";
import { dropsCharacters } from "./tokenizer_features.ts";
import { readTokenizerFiles, type TokenizerDefinition, type TokenizerFiles } from "./tokenizer_files.ts";
import { type Merge, WordCutter } from "./word_cutter.ts";

/** Encoded and decoded once, so that a tokenizer that fails on any text is refused before the first prompt. */
const TRIAL = "A b, 1";
/** Time limit of a text, generous: the library encodes 85,000 characters per second of the text that it is slowest at. */
const LEAST_SECONDS = 10;
const LEAST_PER_SECOND = 5000;
/** Loading a vocabulary may take longer than a text by this factor. */
const LOAD_FACTOR = 6;

/** How {@link Tokenizer.encode} treats special tokens. */
export interface EncodeOptions {
  /** Adds the special tokens that the model expects around a text, mostly BOS. Default true. */
  addSpecialTokens?: boolean;
  /** Encodes the text of special tokens as these tokens; otherwise it is ordinary text. Default false. */
  parseSpecial?: boolean;
}

/** How {@link Tokenizer.load} loads a tokenizer. */
export interface TokenizerOptions {
  /** Rows of the model's embedding; a vocabulary with more tokens is refused. Default: no limit. */
  vocabSize?: number;
  /** Seconds that any text may take, in addition to the time for its length. Default 10. */
  leastSeconds?: number;
}

/** How a conversation is formatted. */
export interface ChatOptions {
  /** Appends the start of the assistant's turn. Default true. */
  addGenerationPrompt?: boolean;
  /** Sets `enable_thinking`, which some templates read. Default: not set, so the template decides. */
  enableThinking?: boolean;
}

/** The variable that switches thinking on and off in the templates that offer it. */
const THINKING = "enable_thinking";

/** Converts between text and token ids, from the tokenizer files of a model folder. */
export class Tokenizer implements TokenDecoder {
  /** The token at the beginning of a text, or undefined if the model has none. */
  readonly bosTokenId: number | undefined;
  /** The token at the end of a text, or undefined if the model has none. */
  readonly eosTokenId: number | undefined;
  /** Parts of the files that are ignored. */
  readonly notices: readonly Notice[];
  readonly #library: Library;
  readonly #specialIds: ReadonlySet<number>;
  readonly #specials: AddedTokenSplitter;
  /** Encodes the text of special tokens as these tokens. */
  readonly #parsing: TokenEncoder;
  /** Encodes the text of special tokens as ordinary text. */
  readonly #literal: TokenEncoder;
  /** Ids before and after a text. */
  readonly #frame: readonly [prefix: number[], suffix: number[]];
  readonly #chatTemplate: ChatTemplate | undefined;
  /** Whether decoding runs regular expressions of the model; few models have them. */
  readonly #decodesPatterns: boolean;
  readonly #leastSeconds: number;

  private constructor(
    { definition, config, notices }: TokenizerFiles,
    chatTemplate?: ChatTemplate,
    leastSeconds = LEAST_SECONDS,
  ) {
    const { added_tokens: added, model } = definition;
    this.notices = notices;
    const isSpecial = (token: AddedToken): boolean => token.special === true;
    const [library, merges] = makeLibrary(definition, config);
    this.#library = library;
    mendByteFallback(this.#library.decoder);
    mendNormalizedTokens(this.#library, added);
    this.#specialIds = new Set(added.filter(isSpecial).map((token) => token.id));
    this.#specials = new AddedTokenSplitter(added.filter(isSpecial));
    const cutter = new WordCutter(model, merges);
    const drops = dropsCharacters(definition);
    this.#parsing = new TokenEncoder(this.#library, added, cutter, drops);
    this.#literal = new TokenEncoder(this.#library, added.filter((token) => !isSpecial(token)), cutter, drops);
    this.#frame = readFrame(this.#library);
    this.#chatTemplate = chatTemplate;
    this.#leastSeconds = leastSeconds;
    this.#decodesPatterns = JSON.stringify(definition.decoder ?? null).includes('"Regex"');
    this.bosTokenId = this.tokenId(tokenText(config.bos_token) ?? "");
    this.eosTokenId = this.tokenId(tokenText(config.eos_token) ?? "");
  }

  /**
   * Loads the tokenizer of a model folder.
   *
   * @throws {PagesiftError} of kind "model" when a file is missing or invalid, a part is not supported, or the vocabulary has more
   * tokens than the embedding has rows
   */
  static async load(folder: string, options: TokenizerOptions = {}): Promise<Tokenizer> {
    const files = await readTokenizerFiles(folder, options.vocabSize);
    const chatTemplate = await findChatTemplate(folder, files.config, specialTexts(files.config));
    return Tokenizer.make(files, chatTemplate, `${folder}/tokenizer.json`, options);
  }

  /** A tokenizer from checked parts; `origin` is for messages. Throws "model" errors when the library cannot use them. */
  static make(
    files: TokenizerFiles,
    chatTemplate: ChatTemplate | undefined,
    origin: string,
    options: TokenizerOptions = {},
  ): Tokenizer {
    try {
      // The constructor runs the normalizer's patterns over the added tokens, and the file chooses both.
      const seconds = LOAD_FACTOR * (options.leastSeconds ?? LEAST_SECONDS);
      const tokenizer = withTimeLimit(seconds, () => new Tokenizer(files, chatTemplate, options.leastSeconds));
      tokenizer.decode(tokenizer.encode(TRIAL)); // the library constructs some parts that it cannot run
      return tokenizer;
    } catch (cause) {
      throw new PagesiftError("model", `Cannot use "${origin}": ${shorten(reasonOf(cause), 200)}`, { cause });
    }
  }

  /**
   * The ids of `text`. With `parseSpecial`, a text that begins with BOS gets no second one.
   *
   * @throws {PagesiftError} of kind "model" when the tokenizer's patterns take too long
   */
  encode(text: string, options: EncodeOptions = {}): number[] {
    const { addSpecialTokens = true, parseSpecial = false } = options;
    const ids = this.#inTime(text.length, () => (parseSpecial ? this.#parsing : this.#literal).encode(text));
    if (!addSpecialTokens) return ids;
    const [prefix, suffix] = this.#frame;
    const hasBos = ids[0] !== undefined && ids[0] === this.bosTokenId && ids[0] === prefix.at(-1);
    return [...(hasBos ? prefix.slice(0, -1) : prefix), ...ids, ...suffix];
  }

  /**
   * The text of `ids`, without special tokens by default. Ids without a token, which spare embedding rows can produce, are skipped.
   *
   * @throws {PagesiftError} of kind "model" when the tokenizer's patterns take too long
   */
  decode(ids: readonly number[], options: { skipSpecialTokens?: boolean } = {}): string {
    const { skipSpecialTokens = true } = options;
    const shown = ids.filter((id) => skipSpecialTokens ? !this.isSilent(id) : this.#hasToken(id));
    if (shown.length === 0) return "";
    // No clean-up: removing the space before punctuation would change text that has been streamed already.
    const read = (): string => this.#library.decode(shown, { clean_up_tokenization_spaces: false });
    return this.#decodesPatterns ? this.#inTime(shown.length, read) : read();
  }

  /** A stream from ids to text; `context` contains the ids before the first one. */
  stream(context: readonly number[] = []): TextStream {
    return new TextStream(this, context);
  }

  /** Whether {@link decode} skips the id by default: a special token, or an id without a token. */
  isSilent(id: number): boolean {
    return this.#specialIds.has(id) || !this.#hasToken(id);
  }

  /** The id of the token with this text, such as `<|im_end|>`, or undefined. */
  tokenId(text: string): number | undefined {
    return this.#library.token_to_id(text);
  }

  /** The id of the special token with this text, or undefined. */
  specialId(text: string): number | undefined {
    const id = this.tokenId(text);
    return id !== undefined && this.#specialIds.has(id) ? id : undefined;
  }

  /** Whether the model folder contains a chat template. */
  get hasChatTemplate(): boolean {
    return this.#chatTemplate !== undefined;
  }

  /** Whether the chat template reads {@link ChatOptions.enableThinking}. */
  get switchesThinking(): boolean {
    return this.#chatTemplate?.source.includes(THINKING) ?? false;
  }

  /**
   * A conversation as text in the model's format.
   *
   * @throws {PagesiftError} of kind "model" without a usable template, "usage" when the template refuses the messages
   */
  applyChatTemplate(messages: readonly ChatMessage[], options: ChatOptions = {}): string {
    const { addGenerationPrompt = true, enableThinking } = options;
    const variables = enableThinking === undefined ? {} : { [THINKING]: enableThinking };
    return this.#requireTemplate().render(messages, addGenerationPrompt, variables);
  }

  /**
   * The ids of a conversation. Only the template writes special tokens: their text inside a message remains text. No BOS is added,
   * because the template contains it if the model requires one.
   *
   * @throws {PagesiftError} of kind "model" without a usable template, "usage" when the template refuses the messages
   */
  encodeChat(messages: readonly ChatMessage[], options: ChatOptions = {}): number[] {
    const usedText = [this.#requireTemplate().source, ...messages.map((message) => message.content)].join("");
    const guard = new SpecialGuard(this.#specials, usedText);
    const guarded = messages.map((message) => ({ ...message, content: guard.hide(message.content) }));
    const text = this.applyChatTemplate(guarded, options);
    return this.#inTime(text.length, () => this.#parsing.encode(text, (part) => guard.restore(part)));
  }

  /**
   * Runs `work` on `length` characters or ids within a time limit: a pattern of the file can take exponential time.
   *
   * @throws {PagesiftError} of kind "model"
   */
  #inTime<T>(length: number, work: () => T): T {
    try {
      return withTimeLimit(this.#leastSeconds + length / LEAST_PER_SECOND, work);
    } catch (cause) {
      if (!(cause instanceof TimeLimitError)) throw cause;
      const reason = `${cause.message} over ${length.toLocaleString("en")} characters or ids`;
      throw new PagesiftError("model", `Cannot use the tokenizer: ${reason}; use another model or a shorter text`, {
        cause,
      });
    }
  }

  #hasToken(id: number): boolean {
    return this.#library.id_to_token(id) !== undefined;
  }

  #requireTemplate(): ChatTemplate {
    if (this.#chatTemplate !== undefined) return this.#chatTemplate;
    throw new PagesiftError("model", "The model has no chat template: use --raw to pass the prompt as it is");
  }
}

/** Private parts of the library's BPE model: the table of merges, and what the vocabulary was made of. */
interface BpeParts {
  /** By the JSON of a pair. */
  bpe_ranks: Map<string, number>;
  config: unknown;
}

/**
 * The library, and how to read the merges from its table. The table is made here, because the library makes three lists of the merges for
 * it; and the vocabulary as the file has it is not kept beside its own tables. A vocabulary of 262,144 tokens has half a million merges.
 */
function makeLibrary(definition: TokenizerDefinition, config: JsonObject): [Library, () => Iterable<Merge>] {
  const { model } = definition;
  if (model.type !== "BPE") return [new Library(definition, config), () => []];
  const library = new Library({ ...definition, model: { ...model, merges: [] } }, config);
  const ranks = ranksOf(model.merges as readonly (string | Merge)[]);
  const parts = library.model as unknown as BpeParts;
  parts.bpe_ranks = ranks;
  parts.config = (library as unknown as { tokenizer: unknown }).tokenizer = undefined;
  return [library, () => ranks.keys().map((pair): Merge => JSON.parse(pair))];
}

/** The places of merges, by the JSON of their pairs. */
function ranksOf(merges: readonly (string | Merge)[]): Map<string, number> {
  const ranks = new Map<string, number>();
  merges.forEach((merge, rank) => {
    ranks.set(JSON.stringify(typeof merge === "string" ? merge.split(" ", 2) : merge), rank);
  });
  return ranks;
}

/** Makes added tokens that are matched in normalized text decode to their normalized text. */
function mendNormalizedTokens(library: Library, added: readonly AddedToken[]): void {
  const { normalizer } = library;
  if (normalizer === null) return;
  const parts = (library.decoder ?? {}) as DecoderParts;
  const { vocab } = library.model as unknown as { vocab: string[] };
  for (const { id, content, normalized, special } of added) {
    if (!(normalized ?? !special)) continue;
    const text = normalizer.normalize(content);
    if (text === content) continue;
    vocab[id] = text;
    parts.added_tokens?.push({ content: text });
  }
}

/** Private parts of the library's decoders. */
interface DecoderParts {
  added_tokens?: { content: string }[];
  config?: { type?: unknown };
  decoders?: unknown[];
  text_decoder?: TextDecoder;
}

/**
 * Preserves a byte order mark, which the library drops. (In a run of bytes that is not valid UTF-8, the Rust library replaces every
 * byte. Here the valid characters in it remain, because a stream has already printed them.)
 */
function mendByteFallback(decoder: unknown): void {
  const parts = (decoder ?? {}) as DecoderParts;
  for (const one of parts.decoders ?? []) mendByteFallback(one);
  if (parts.config?.type === "ByteFallback") parts.text_decoder = new TextDecoder("utf-8", { ignoreBOM: true });
}

/** Ids that the post-processor adds before and after a text. */
function readFrame(library: Library): [number[], number[]] {
  const text = "";
  const tokens = library.post_processor?.post_process([text], null, true).tokens ?? [text];
  const idOf = (token: string): number => {
    const id = library.token_to_id(token);
    if (id === undefined) throw new Error(`its post-processor adds "${token}", which the vocabulary lacks`);
    return id;
  };
  const middle = tokens.indexOf(text);
  return [tokens.slice(0, middle).map(idOf), tokens.slice(middle + 1).map(idOf)];
}

/** The special tokens that chat templates may use, by name. */
export function specialTexts(config: JsonObject): Record<string, string | undefined> {
  const { bos_token, eos_token, pad_token, unk_token } = config;
  const names = Object.entries({ bos_token, eos_token, pad_token, unk_token });
  return Object.fromEntries(names.map(([name, token]) => [name, tokenText(token)]));
}

/** A token of `tokenizer_config.json`, which is its text or an object that holds it. */
function tokenText(token: unknown): string | undefined {
  const text = isJsonObject(token) ? token.content : token;
  return typeof text === "string" ? text : undefined;
}
