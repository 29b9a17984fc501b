/** What {@link TextStream} needs of a tokenizer. */
export interface TokenDecoder {
  /** The text of `ids`, special tokens left out; bytes that form no character become U+FFFD. */
  decode(ids: readonly number[]): string;
  /** Whether a token leaves no trace in the text: a control token, or an id without a token. */
  isSilent(id: number): boolean;
}

const REPLACEMENT = "\uFFFD";
/** Tokens that a full window is cut back to: enough for the at most 3 bytes of an open character and what stands before. */
const KEPT_TOKENS = 8;
const MAX_WINDOW_TOKENS = 24;

/**
 * Turns token ids into text one by one and never emits half a character: the pieces of `push`, and `flush` at the end,
 * concatenate to the decoding of all ids. A push decodes a window of the latest ids, so its cost does not grow.
 */
export class TextStream {
  readonly #decoder: TokenDecoder;
  #window: number[] = [];
  /** UTF-16 units of the window's text that are out already. */
  #emitted = 0;

  /** `context` holds ids that come before; their text is not emitted, but decides whether a leading space stays. */
  constructor(decoder: TokenDecoder, context: readonly number[] = []) {
    this.#decoder = decoder;
    this.#window = context.filter((id) => !decoder.isSilent(id)).slice(-KEPT_TOKENS);
    this.#emitted = this.#wholeText().length;
  }

  /** The text that became whole with `id`; empty while a character is still open. */
  push(id: number): string {
    // A silent token is no part of the window, where it could push out what decides about a leading space.
    if (this.#decoder.isSilent(id)) return "";
    this.#window.push(id);
    const text = this.#wholeText();
    const piece = text.slice(this.#emitted);
    this.#emitted = text.length;
    if (this.#window.length > MAX_WINDOW_TOKENS) this.#shorten();
    return piece;
  }

  /** What is still held back: U+FFFD when the ids ended inside a character. The stream is empty afterwards. */
  flush(): string {
    const rest = this.#decoder.decode(this.#window).slice(this.#emitted);
    this.#window = [];
    this.#emitted = 0;
    return rest;
  }

  /**
   * The window's text without a closing U+FFFD. A decoder replaces an unfinished character by exactly one U+FFFD, so
   * all before it is final; it may also be real, and goes out with the next token then.
   */
  #wholeText(): string {
    const text = this.#decoder.decode(this.#window);
    return text.endsWith(REPLACEMENT) ? text.slice(0, -1) : text;
  }

  /** Drops old ids. The cut may split a character, whose rest decodes to U+FFFD; that part counts as emitted. */
  #shorten(): void {
    const openText = this.#decoder.decode(this.#window).length - this.#emitted;
    this.#window = this.#window.slice(-KEPT_TOKENS);
    this.#emitted = this.#decoder.decode(this.#window).length - openText;
  }
}
