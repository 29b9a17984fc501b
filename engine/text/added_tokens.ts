import { PagesiftError } from "../errors.ts";

/** An entry of `added_tokens` in `tokenizer.json`: text that is one token wherever it stands. */
export interface AddedToken {
  id: number;
  content: string;
  /** A control token, such as an end of turn; others are ordinary words that were added later. */
  special?: boolean;
  /** Takes the white space before or after it away. */
  lstrip?: boolean;
  rstrip?: boolean;
  /** Found in normalised text; default: the opposite of `special`. */
  normalized?: boolean;
}

/** A part of a text: an added token, or what stands between two of them. */
export type Section = { token: AddedToken } | { text: string };

/** Times that {@link AddedTokenSplitter.replace} looks at a text; real tokens need two. */
const MAX_PASSES = 100;

/** Finds added tokens in text, the leftmost first and of several at one place the longest. */
export class AddedTokenSplitter {
  readonly #tokens: ReadonlyMap<string, AddedToken>;
  readonly #pattern: RegExp | undefined;

  /** `contentOf` gives the text that stands for a token. */
  constructor(tokens: readonly AddedToken[], contentOf = (token: AddedToken): string => token.content) {
    this.#tokens = new Map(tokens.map((token) => [contentOf(token), token]));
    const contents = [...this.#tokens.keys()].filter((content) => content !== "");
    const longestFirst = contents.sort((a, b) => b.length - a.length).map(escapePattern);
    if (contents.length > 0) this.#pattern = new RegExp(`(${longestFirst.join("|")})`);
  }

  /** The sections of `text` in order; tokens that ask for it take white space off the text beside them. */
  split(text: string): Section[] {
    if (this.#pattern === undefined) return text === "" ? [] : [{ text }];
    const parts = text.split(this.#pattern).filter((part) => part !== "");
    return parts.map((part, index) => {
      const token = this.#tokens.get(part);
      return token ? { token } : { text: this.#strip(part, parts[index - 1] ?? "", parts[index + 1] ?? "") };
    });
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

  #strip(text: string, before: string, after: string): string {
    const start = this.#tokens.get(before)?.rstrip ? text.trimStart() : text;
    return this.#tokens.get(after)?.lstrip ? start.trimEnd() : start;
  }
}

function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}
