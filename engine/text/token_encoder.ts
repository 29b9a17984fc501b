import type { Tokenizer as Library } from "@huggingface/tokenizers";
import { type AddedToken, AddedTokenSplitter } from "./added_tokens.ts";
import type { WordCutter } from "./word_cutter.ts";

/** One text mapped to another. */
export type TextMap = (text: string) => string;

/**
 * Text to ids with the parts of the tokenizers library. Its own `encode` always reads special tokens in the text and
 * is slow where no pre-tokenizer cuts words, so the parts are put together here: added tokens are
 * split off, then each section is normalised, cut into words and encoded.
 */
export class TokenEncoder {
  readonly #library: Library;
  readonly #raw: AddedTokenSplitter;
  readonly #normalised: AddedTokenSplitter;
  readonly #cutter: WordCutter;

  /** `added` are the tokens to be read in text; `drops` leaves out characters that the vocabulary lacks. */
  constructor(library: Library, added: readonly AddedToken[], cutter: WordCutter, readonly drops = false) {
    this.#library = library;
    const inNormalised = (token: AddedToken): boolean =>
      library.normalizer !== null && (token.normalized ?? !token.special);
    this.#raw = new AddedTokenSplitter(added.filter((token) => !inNormalised(token)));
    this.#normalised = new AddedTokenSplitter(added.filter(inNormalised), (token) => this.#normalise(token.content));
    this.#cutter = cutter;
  }

  /** The ids of `text`, nothing added; `restore` is applied to all text that is not an added token. */
  encode(text: string, restore: TextMap = (part) => part): number[] {
    const ids: number[] = [];
    this.#raw.split(text).forEach((section, sectionIndex) => {
      if ("token" in section) return ids.push(section.token.id);
      for (const part of this.#normalised.split(this.#normalise(section.text))) {
        if ("token" in part) ids.push(part.token.id);
        else this.#encodeWords(restore(part.text), sectionIndex, ids);
      }
    });
    return ids;
  }

  #known(word: string): string {
    return [...word].filter((character) => this.#library.token_to_id(character) !== undefined).join("");
  }

  #normalise(text: string): string {
    return text === "" ? text : this.#library.normalizer?.normalize(text) ?? text;
  }

  #encodeWords(text: string, sectionIndex: number, ids: number[]): void {
    const { pre_tokenizer: preTokenizer, model } = this.#library;
    const cut = preTokenizer?.pre_tokenize(text, { section_index: sectionIndex }) ?? [text];
    // The library merges around such characters, where the Rust library merges what they leave.
    const words = this.drops ? cut.map((word) => this.#known(word)) : cut;
    for (const token of model!._call(words.flatMap((word) => this.#cutter.cut(word)))) {
      const id = this.#library.token_to_id(token) ?? model!.unk_token_id;
      if (id !== undefined) ids.push(id);
    }
  }
}
