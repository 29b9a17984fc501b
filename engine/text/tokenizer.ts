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
import { readTokenizerFiles, type TokenizerFiles } from "./tokenizer_files.ts";
import { WordCutter } from "./word_cutter.ts";

/** Read and written once, so that a tokenizer that fails at any text is refused before a prompt is there. */
const TRIAL = "A b, 1";
/** What a text may take, far more than it does: the library reads 85,000 characters a second of the kind that it is slowest at. */
const LEAST_SECONDS = 10;
const LEAST_PER_SECOND = 5000;
/** Reading a vocabulary may take longer than a text, by this much. */
const LOAD_FACTOR = 6;

/** How {@link Tokenizer.encode} treats special tokens. */
export interface EncodeOptions {
  /** Adds what the model expects around a text, mostly BOS. Default true. */
  addSpecialTokens?: boolean;
  /** Reads the text of special tokens as these tokens; otherwise they are ordinary text. Default false. */
  parseSpecial?: boolean;
}

/** What a tokenizer is loaded with. */
export interface TokenizerOptions {
  /** The model's number of embedding rows. */
  vocabSize?: number;
  /** Time that any text may take, beside that for its length. Default 10. */
  leastSeconds?: number;
}

/** How a conversation ends. */
export interface ChatOptions {
  /** Appends the beginning of the assistant's turn. Default true. */
  addGenerationPrompt?: boolean;
}

/** Text to token ids and back, from the tokenizer files of a model folder. */
export class Tokenizer implements TokenDecoder {
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  /** What is ignored of its files. */
  readonly notices: readonly Notice[];
  readonly #library: Library;
  readonly #specialIds: ReadonlySet<number>;
  readonly #specials: AddedTokenSplitter;
  /** Reads special tokens in text, and takes their text literally. */
  readonly #parsing: TokenEncoder;
  readonly #literal: TokenEncoder;
  /** Ids that go before and after a text. */
  readonly #frame: readonly [prefix: number[], suffix: number[]];
  readonly #chatTemplate: ChatTemplate | undefined;
  /** Whether decoding searches text by the model's regular expressions; hardly any model does. */
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
    this.#library = new Library(definition, config);
    mendByteFallback(this.#library.decoder);
    mendNormalizedTokens(this.#library, added);
    this.#specialIds = new Set(added.filter(isSpecial).map((token) => token.id));
    this.#specials = new AddedTokenSplitter(added.filter(isSpecial));
    const cutter = new WordCutter(model);
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
   * Reads the tokenizer of a model folder. Throws "model" errors when a file is missing or broken, a part is unsupported,
   * or its vocabulary has more tokens than the embedding has rows.
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
      // Making one runs the normalizer's patterns over the added tokens, which the file has chosen.
      const seconds = LOAD_FACTOR * (options.leastSeconds ?? LEAST_SECONDS);
      const tokenizer = withTimeLimit(seconds, () => new Tokenizer(files, chatTemplate, options.leastSeconds));
      tokenizer.decode(tokenizer.encode(TRIAL)); // the library builds some parts that cannot run
      return tokenizer;
    } catch (cause) {
      throw new PagesiftError("model", `Cannot use "${origin}": ${shorten(reasonOf(cause), 200)}`, { cause });
    }
  }

  /** The ids of `text`. With `parseSpecial`, a text that begins with BOS gets no second one. */
  encode(text: string, options: EncodeOptions = {}): number[] {
    const { addSpecialTokens = true, parseSpecial = false } = options;
    const ids = this.#inTime(text.length, () => (parseSpecial ? this.#parsing : this.#literal).encode(text));
    if (!addSpecialTokens) return ids;
    const [prefix, suffix] = this.#frame;
    const hasBos = ids[0] !== undefined && ids[0] === this.bosTokenId && ids[0] === prefix.at(-1);
    return [...(hasBos ? prefix.slice(0, -1) : prefix), ...ids, ...suffix];
  }

  /** The text of `ids`. Ids without a token, which spare embedding rows can produce, leave no trace. */
  decode(ids: readonly number[], options: { skipSpecialTokens?: boolean } = {}): string {
    const { skipSpecialTokens = true } = options;
    const shown = ids.filter((id) => skipSpecialTokens ? !this.isSilent(id) : this.#hasToken(id));
    if (shown.length === 0) return "";
    // Never cleaned up: taking away the space before punctuation would change text that was streamed already.
    const read = (): string => this.#library.decode(shown, { clean_up_tokenization_spaces: false });
    return this.#decodesPatterns ? this.#inTime(shown.length, read) : read();
  }

  /** A stream from ids to text; `context` holds the ids before them, see {@link TextStream}. */
  stream(context: readonly number[] = []): TextStream {
    return new TextStream(this, context);
  }

  /** Whether `decode` leaves the id out by default: a special token, or an id without a token. */
  isSilent(id: number): boolean {
    return this.#specialIds.has(id) || !this.#hasToken(id);
  }

  /** The id of the token with this text, such as `<|im_end|>`. */
  tokenId(text: string): number | undefined {
    return this.#library.token_to_id(text);
  }

  /** The id of the special token with this text. */
  specialId(text: string): number | undefined {
    const id = this.tokenId(text);
    return id !== undefined && this.#specialIds.has(id) ? id : undefined;
  }

  get hasChatTemplate(): boolean {
    return this.#chatTemplate !== undefined;
  }

  /** A conversation as the model reads it. Errors: "model" without a usable template, "usage" where it refuses. */
  applyChatTemplate(messages: readonly ChatMessage[], options: ChatOptions = {}): string {
    return this.#requireTemplate().render(messages, options.addGenerationPrompt ?? true);
  }

  /**
   * The ids of a conversation. Special tokens come from the template only: their text inside a message stays text. No
   * BOS is added, because a template holds one where the model wants it.
   */
  encodeChat(messages: readonly ChatMessage[], options: ChatOptions = {}): number[] {
    const usedText = [this.#requireTemplate().source, ...messages.map((message) => message.content)].join("");
    const guard = new SpecialGuard(this.#specials, usedText);
    const guarded = messages.map((message) => ({ ...message, content: guard.hide(message.content) }));
    const text = this.applyChatTemplate(guarded, options);
    return this.#inTime(text.length, () => this.#parsing.encode(text, (part) => guard.restore(part)));
  }

  /**
   * The result of `work` on so many characters or ids. Patterns that backtrack without end are refused when a tokenizer is
   * read; one with two repetitions still takes the cube of a text, so there is a clock too. Throws a "model" error.
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

/** Added tokens that are found in normalised text decode to their normalised text. */
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

/** What a decoder of the library may have inside. */
interface DecoderParts {
  added_tokens?: { content: string }[];
  config?: { type?: unknown };
  decoders?: unknown[];
  text_decoder?: TextDecoder;
}

/**
 * Keeps a byte order mark, which the library drops. (Of a run of bytes that is no text, the Rust library replaces every byte; here the
 * characters in it stay, because a stream has printed them already.)
 */
function mendByteFallback(decoder: unknown): void {
  const parts = (decoder ?? {}) as DecoderParts;
  for (const one of parts.decoders ?? []) mendByteFallback(one);
  if (parts.config?.type === "ByteFallback") parts.text_decoder = new TextDecoder("utf-8", { ignoreBOM: true });
}

/** What the post-processor puts around a text. */
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
