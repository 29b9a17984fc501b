/** Where the tokens of a prompt come from: characters, files and lines. */

/** A part of the prompt as it was read. */
export interface PromptPart {
  name: string;
  /** Characters `[start, end)` of the prompt. */
  start: number;
  end: number;
}

/** A range of the tokens' text that comes from one source. */
export interface Span {
  source: string;
  /** Characters `[start, end)` of the tokens' text. */
  start: number;
  end: number;
  /** Line of the source at `start`, from 1; 0 if the source has no lines. */
  line: number;
}

/** The part of a page that comes from one source. */
export interface Place {
  source: string;
  /** First and last line, both included; 0 if the source has no lines. */
  firstLine: number;
  lastLine: number;
  /** Share of the page's characters; the places of a page sum to 1. */
  share: number;
}

/** Names for text without a source. */
export const TEMPLATE = "<template>";
export const ANSWER = "<answer>";

/** The text of all tokens, the end of each token, and the source of each range. */
export interface PromptText {
  text: string;
  /** `[T]` */
  tokenEnds: Uint32Array;
  /** Ascending and disjoint. */
  spans: readonly Span[];
}

/** How tokens become text. */
export interface Decoder {
  decode(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string;
  isSilent(id: number): boolean;
  stream(): { push(id: number): string; flush(): string };
}

/** The text of all ids, special tokens spelled out, and the end of each token. */
export function spellTokens(decoder: Decoder, ids: readonly number[]): { text: string; tokenEnds: Uint32Array } {
  const stream = decoder.stream();
  const pieces: string[] = [];
  const tokenEnds = new Uint32Array(ids.length);
  let length = 0;
  ids.forEach((id, index) => {
    const piece = decoder.isSilent(id) ? decoder.decode([id], { skipSpecialTokens: false }) : stream.push(id);
    pieces.push(piece);
    tokenEnds[index] = length += piece.length;
  });
  const rest = stream.flush();
  if (tokenEnds.length > 0) tokenEnds[tokenEnds.length - 1] = length + rest.length;
  return { text: pieces.join("") + rest, tokenEnds };
}

/** A range of the prompt found in the tokens' text. */
interface Match {
  inText: number;
  inPrompt: number;
  length: number;
}

const ANCHOR = 48;

/**
 * Finds the prompt in the text of its tokens: the whole prompt, or the prompt without surrounding white space (templates trim it), or
 * the beginning and the end of a truncated prompt.
 */
function matchPrompt(text: string, prompt: string): Match[] {
  for (const [wanted, inPrompt] of [[prompt, 0], [prompt.trim(), prompt.length - prompt.trimStart().length]] as const) {
    const inText = wanted === "" ? -1 : text.indexOf(wanted);
    if (inText >= 0) return [{ inText, inPrompt, length: wanted.length }];
  }
  const trimmed = prompt.trim();
  const lead = prompt.length - prompt.trimStart().length;
  const head = text.indexOf(trimmed.slice(0, ANCHOR));
  const tail = text.lastIndexOf(trimmed.slice(-ANCHOR));
  const matches: Match[] = [];
  if (head >= 0) {
    let length = 0;
    while (length < trimmed.length && text[head + length] === trimmed[length]) length++;
    matches.push({ inText: head, inPrompt: lead, length });
  }
  const first = matches[0] ? matches[0].inText + matches[0].length : 0;
  if (tail >= 0) {
    const end = tail + Math.min(ANCHOR, trimmed.length);
    let length = 0;
    while (end - length > first && text[end - 1 - length] === trimmed[trimmed.length - 1 - length]) length++;
    if (length > 0) matches.push({ inText: end - length, inPrompt: lead + trimmed.length - length, length });
  }
  return matches;
}

/** Locates the parts of a prompt in the text of its tokens; `unmatched` counts characters of the text that were not found. */
export function locateParts(
  text: string,
  prompt: string,
  parts: readonly PromptPart[],
): { spans: Span[]; unmatched: number } {
  const lines = new LineIndex(prompt);
  const spans: Span[] = [];
  let matched = 0;
  for (const { inText, inPrompt, length } of matchPrompt(text, prompt)) {
    matched += length;
    for (const { name, start, end } of parts) {
      const [from, to] = [Math.max(start, inPrompt), Math.min(end, inPrompt + length)];
      if (from >= to) continue;
      const line = lines.at(from) - lines.at(start) + 1;
      spans.push({ source: name, start: inText + from - inPrompt, end: inText + to - inPrompt, line });
    }
  }
  return { spans, unmatched: text.length - matched };
}

/** Line numbers of characters. */
export class LineIndex {
  readonly #breaks: number[] = [];

  constructor(text: string) {
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) this.#breaks.push(at);
  }

  /** Line of a character, from 1. A line break belongs to the line it ends. */
  at(character: number): number {
    let [low, high] = [0, this.#breaks.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#breaks[middle]! < character) low = middle + 1;
      else high = middle;
    }
    return low + 1;
  }
}

/** The text and places of a prompt's pages. */
export class PageTexts {
  readonly #lines: LineIndex;

  constructor(readonly prompt: PromptText, readonly pageSize: number) {
    this.#lines = new LineIndex(prompt.text);
  }

  /** Tokens `[first, last]` of a page. */
  tokens(page: number): { first: number; last: number } {
    const first = page * this.pageSize;
    return { first, last: Math.min(first + this.pageSize, this.prompt.tokenEnds.length) - 1 };
  }

  /** Characters `[start, end)` of a page. */
  characters(page: number): { start: number; end: number } {
    const { first, last } = this.tokens(page);
    const ends = this.prompt.tokenEnds;
    return { start: first === 0 ? 0 : ends[first - 1] ?? 0, end: ends[last] ?? 0 };
  }

  text(page: number): string {
    const { start, end } = this.characters(page);
    return this.prompt.text.slice(start, end);
  }

  /** The sources of a page, largest share first. */
  places(page: number): Place[] {
    const { start, end } = this.characters(page);
    const length = Math.max(1, end - start);
    const places: Place[] = [];
    let left = length;
    for (let at = firstSpanAfter(this.prompt.spans, start); at < this.prompt.spans.length; at++) {
      const span = this.prompt.spans[at]!;
      if (span.start >= Math.max(end, start + 1)) break;
      const [from, to] = [Math.max(start, span.start), Math.min(end, span.end)];
      const share = Math.max(to - from, 0) / length;
      left -= Math.max(to - from, 0);
      places.push(this.#place(span, from, to, share));
    }
    if (left > 0) places.push({ source: TEMPLATE, firstLine: 0, lastLine: 0, share: left / length });
    return places.sort((a, b) => b.share - a.share);
  }

  #place({ source, start, line }: Span, from: number, to: number, share: number): Place {
    if (line === 0) return { source, firstLine: 0, lastLine: 0, share };
    let last = Math.max(from, to - 1);
    while (last > from && /[\r\n]/.test(this.prompt.text[last] ?? "")) last--; // the line break between two parts belongs to neither
    const lineAt = (character: number): number => line + this.#lines.at(character) - this.#lines.at(start);
    return { source, firstLine: lineAt(from), lastLine: lineAt(last), share };
  }
}

/** The first span that ends after a character. */
function firstSpanAfter(spans: readonly Span[], character: number): number {
  let [low, high] = [0, spans.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (spans[middle]!.end <= character) low = middle + 1;
    else high = middle;
  }
  return low;
}
