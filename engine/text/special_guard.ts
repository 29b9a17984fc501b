import type { AddedTokenSplitter } from "./added_tokens.ts";

const FIRST_SENTINEL = 0xe000;
const LAST_SENTINEL = 0xf8ff;

/**
 * Keeps the text of special tokens inside a message from becoming these tokens: `hide` swaps the first character of each
 * for a private-use character that occurs nowhere else, the template is rendered and split at special tokens, and
 * `restore` replaces the characters in the remaining text. A message without such text passes unchanged.
 */
export class SpecialGuard {
  readonly #specials: AddedTokenSplitter;
  readonly #usedText: string;
  readonly #sentinels = new Map<string, string>();
  readonly #originals = new Map<string, string>();

  /** `specials` finds the special tokens; sentinels are characters that `usedText` lacks. */
  constructor(specials: AddedTokenSplitter, usedText: string) {
    this.#specials = specials;
    this.#usedText = usedText;
  }

  hide(text: string): string {
    return this.#specials.replace(text, (content) => {
      const [first = ""] = content;
      return this.#sentinelFor(first) + content.slice(first.length);
    });
  }

  restore(text: string): string {
    if (this.#originals.size === 0) return text;
    return text.replace(/[\ue000-\uf8ff]/g, (char) => this.#originals.get(char) ?? char);
  }

  #sentinelFor(character: string): string {
    const known = this.#sentinels.get(character);
    if (known !== undefined) return known;
    const sentinel = this.#unusedCharacter();
    this.#sentinels.set(character, sentinel);
    this.#originals.set(sentinel, character);
    return sentinel;
  }

  #unusedCharacter(): string {
    for (let code = LAST_SENTINEL; code >= FIRST_SENTINEL; code--) {
      const character = String.fromCharCode(code);
      if (!this.#originals.has(character) && !this.#usedText.includes(character)) return character;
    }
    // Text that uses all 6,400 private-use characters: U+FFFD only loses the character that it replaces.
    return "\uFFFD";
  }
}
