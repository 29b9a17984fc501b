import type { JsonObject } from "../folder/json_file.ts";

/** Words longer than this are worth cutting; the library caches the tokens of shorter ones. */
const LONG_WORD = 256;

/** Two tokens that are joined. */
export type Merge = readonly [left: string, right: string];

/**
 * Cuts long text where BPE cannot merge: between two characters that are adjacent in no merged token. Tokens never
 * span such a place, so the pieces have the same tokens as the whole, in time linear in the text. Tokenizers without a
 * pre-tokenizer (Llama 2, Mistral) need it: for them a whole book is one word.
 */
export class WordCutter {
  readonly #merges: (() => Iterable<Merge>) | undefined;
  /** Pairs of characters that some merge joins; undefined until a long word comes. */
  #joined: Set<string> | undefined;

  /** `model` is that part of a checked `tokenizer.json`, and `merges` gives its merges once a long word comes. */
  constructor(model: JsonObject, merges: () => Iterable<Merge>) {
    this.#merges = hasPlainMerges(model) ? merges : undefined;
  }

  /** The pieces of `word` in order; the word itself if it is short or its merges are unknown. */
  cut(word: string): string[] {
    if (word.length <= LONG_WORD || !this.#merges) return [word];
    const joined = this.#joined ??= joinedPairs(this.#merges());
    const pieces: string[] = [];
    let [start, end, previous] = [0, 0, ""];
    for (const character of word) {
      if (end > 0 && !joined.has(previous + character)) {
        pieces.push(word.slice(start, end));
        start = end;
      }
      previous = character;
      end += character.length;
    }
    return [...pieces, word.slice(start)];
  }
}

/** Whether tokens come from merges of characters alone, not from whole words or marks at a word's ends. */
function hasPlainMerges(model: JsonObject): boolean {
  const { type, ignore_merges: ignores, continuing_subword_prefix: prefix, end_of_word_suffix: suffix } = model;
  return type === "BPE" && !ignores && !prefix && !suffix;
}

/** The last character of the left and the first of the right half; pairs inside a half stem from its own merge. */
function joinedPairs(merges: Iterable<Merge>): Set<string> {
  const pairs = new Set<string>();
  for (const [left, right] of merges) {
    const [first = ""] = right;
    pairs.add(lastCharacter(left) + first);
  }
  return pairs;
}

function lastCharacter(text: string): string {
  return /[\udc00-\udfff]$/.test(text) ? text.slice(-2) : text.slice(-1);
}
