/** The part of a tokenizer that {@link TextStream} uses. */
export interface TokenDecoder {
  /** The text of `ids` without special tokens; bytes that are not valid UTF-8 become U+FFFD. */
  decode(ids: readonly number[]): string;
  /** Whether an id has no text: a special token, or an id without a token. */
  isSilent(id: number): boolean;
}

const REPLACEMENT = "\uFFFD";
/** Tokens that remain of a full window: enough for the up to 3 bytes of an incomplete character and the text before it. */
const CONTEXT_TOKENS = 8;
const MAX_WINDOW_TOKENS = 24;

/**
 * Converts token ids to text one by one and never emits half a character. The results of {@link push}, and of {@link flush} at the
 * end, concatenate to the text of all ids. Each push decodes a window of the latest ids, so its cost is constant.
 */
export class TextStream {
  readonly #decoder: TokenDecoder;
  #window: number[] = [];
  /** UTF-16 units of the window's text that have been emitted. */
  #emitted = 0;

  /** `context` contains the ids before the first one. Their text is not emitted, but decides whether a leading space remains. */
  constructor(decoder: TokenDecoder, context: readonly number[] = []) {
    this.#decoder = decoder;
    this.#window = context.filter((id) => !decoder.isSilent(id)).slice(-CONTEXT_TOKENS);
    this.#emitted = this.#wholeText().length;
  }

  /** The text that `id` completes; empty while a character is incomplete. */
  push(id: number): string {
    // A silent token would displace the ids in the window that decide about a leading space.
    if (this.#decoder.isSilent(id)) return "";
    this.#window.push(id);
    const text = this.#wholeText();
    const piece = text.slice(this.#emitted);
    this.#emitted = text.length;
    if (this.#window.length > MAX_WINDOW_TOKENS) this.#shorten();
    return piece;
  }

  /** The text that is still held back: U+FFFD if the ids end inside a character. The stream is empty afterwards. */
  flush(): string {
    const rest = this.#decoder.decode(this.#window).slice(this.#emitted);
    this.#window = [];
    this.#emitted = 0;
    return rest;
  }

  /**
   * The window's text without a final U+FFFD. A decoder replaces an incomplete character by exactly one U+FFFD, so everything
   * before it is final. A U+FFFD that the model generated is emitted with the next token.
   */
  #wholeText(): string {
    const text = this.#decoder.decode(this.#window);
    return text.endsWith(REPLACEMENT) ? text.slice(0, -1) : text;
  }

  /** Drops old ids. The cut may split a character, whose remaining bytes decode to U+FFFD; they count as emitted. */
  #shorten(): void {
    const openText = this.#decoder.decode(this.#window).length - this.#emitted;
    this.#window = this.#window.slice(-CONTEXT_TOKENS);
    this.#emitted = this.#decoder.decode(this.#window).length - openText;
  }
}
