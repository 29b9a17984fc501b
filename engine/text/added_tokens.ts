import { PagesiftError } from "../errors.ts";

/** An entry of `added_tokens` in `tokenizer.json`: text that is one token wherever it appears. */
export interface AddedToken {
  id: number;
  content: string;
  /** A control token, such as an end of turn; others are ordinary words that were added later. */
  special?: boolean;
  /** Only without a letter, digit or underscore next to it. */
  single_word?: boolean;
  /** Takes the white space before or after it away. */
  lstrip?: boolean;
  rstrip?: boolean;
  /** Found in normalised text; default: the opposite of `special`. */
  normalized?: boolean;
}

/** A part of a text: an added token, or the text between two of them. */
export type Section = { token: AddedToken } | { text: string };

/** Times that {@link AddedTokenSplitter.replace} looks at a text; real tokens need two. */
const MAX_PASSES = 100;

/** Finds added tokens in text, the leftmost first and of several at one place the longest. */
export class AddedTokenSplitter {
  readonly #tokens: ReadonlyMap<string, AddedToken>;
  readonly #pattern: RegExp | undefined;

  /** `contentOf` returns the text of a token. */
  constructor(tokens: readonly AddedToken[], contentOf = (token: AddedToken): string => token.content) {
    this.#tokens = new Map(tokens.map((token) => [contentOf(token), token]));
    const contents = [...this.#tokens.keys()].filter((content) => content !== "");
    const longestFirst = contents.sort((a, b) => b.length - a.length).map(escapePattern);
    if (contents.length > 0) this.#pattern = new RegExp(`(${longestFirst.join("|")})`);
  }

  /** The sections of `text` in order; tokens with that option strip white space from the text next to them. */
  split(text: string): Section[] {
    if (this.#pattern === undefined) return text === "" ? [] : [{ text }];
    const sections: Section[] = [];
    let [start, before]: [number, AddedToken | undefined] = [0, undefined];
    const addText = (end: number, after?: AddedToken): void => {
      const part = strip(text.slice(start, end), before, after);
      if (part !== "") sections.push({ text: part });
    };
    for (const { 0: content, index } of text.matchAll(new RegExp(this.#pattern, "g"))) {
      const token = this.#tokens.get(content)!;
      const end = index + content.length;
      if (token.single_word && (WORD_END.test(text.slice(0, index)) || WORD_START.test(text.slice(end)))) continue;
      addText(index, token);
      sections.push({ token });
      [start, before] = [end, token];
    }
    addText(text.length);
    return sections;
  }

  /**
   * Replaces every added token in `text`, also those that only a replacement lets appear. Throws a "model" error where replacements never
   * come to an end, which takes tokens that were made for that.
   */
  replace(text: string, replacement: (content: string) => string): string {
    if (this.#pattern === undefined) return text;
    const everywhere = new RegExp(this.#pattern, "g");
    for (let pass = 0; this.#pattern.test(text); pass++) {
      if (pass === MAX_PASSES) {
        throw new PagesiftError(
          "model",
          "The tokenizer has special tokens that cannot be kept out of a text; use another model",
        );
      }
      text = text.replace(everywhere, replacement);
    }
    return text;
  }
}

/** White space and word characters as Rust's regular expressions have them. */
const LEADING_SPACE = /^\p{White_Space}+/u;
const TRAILING_SPACE = /\p{White_Space}+$/u;
const WORD_START = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d]/u;
const WORD_END = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d]$/u;

function strip(text: string, before: AddedToken | undefined, after: AddedToken | undefined): string {
  const start = before?.rstrip ? text.replace(LEADING_SPACE, "") : text;
  return after?.lstrip ? start.replace(TRAILING_SPACE, "") : start;
}

function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}
