import { PagesiftError } from "../engine/errors.ts";
import type { TokenizerPort } from "./engine_port.ts";
import { formatCount, plural } from "../engine/text/format.ts";
import type { PromptEncoder } from "./prompt_encoder.ts";

/** Which part of a prompt is dropped. */
export type Cut = "head" | "middle" | "tail";

/** The space that a prompt must fit in. */
export interface Room {
  /** Length of the context in tokens. */
  limit: number;
  maxTokens: number;
  truncate: Cut | undefined;
}

/** A prompt that fits the context, and a warning if it was shortened or leaves little room. */
export interface FittedPrompt {
  ids: number[];
  warning?: string;
}

/** Encodes a prompt and makes sure that it fits; `name` names it in messages. */
export function fitPrompt(
  text: string,
  name: string,
  room: Room,
  encode: PromptEncoder,
  tokenizer: TokenizerPort,
): FittedPrompt {
  const ids = encode(text);
  if (ids.length === 0) throw noTokens(name);
  if (ids.length <= room.limit) return withEarlyEndWarning(ids, name, room);
  if (room.truncate === undefined) throw tooLong(name, ids.length, room.limit);
  const shorter = truncated(text, ids.length, room, encode, tokenizer);
  if (shorter.length > room.limit) throw tooLong(`${name}, even truncated,`, shorter.length, room.limit);
  const dropped = `${formatCount(ids.length - shorter.length)} of ${plural(ids.length, "token")}`;
  return { ids: shorter, warning: `${name} truncated: dropped ${dropped} from its ${room.truncate}` };
}

function withEarlyEndWarning(ids: number[], name: string, { limit, maxTokens }: Room): FittedPrompt {
  const possible = limit - ids.length + 1; // the last token is printed, not fed back
  if (maxTokens <= possible) return { ids };
  const left = `leaves room for ${formatCount(possible)} of the ${plural(maxTokens, "token")} requested`;
  return {
    ids,
    warning: `${name} of ${plural(ids.length, "token")} ${left}; the context is ${plural(limit, "token")}`,
  };
}

function noTokens(name: string): PagesiftError {
  return new PagesiftError(
    "usage",
    `${name} has no tokens: the tokenizer drops every character; change the text`,
  );
}

function tooLong(name: string, tokens: number, limit: number): PagesiftError {
  const counts = `${plural(tokens, "token")}, limit ${formatCount(limit)}, over by ${formatCount(tokens - limit)}`;
  return new PagesiftError(
    "context",
    `${name} is longer than the context: ${counts}; --truncate head|middle|tail cuts it`,
  );
}

/**
 * Cuts the text rather than the encoded prompt, so that the template and special tokens around it stay whole.
 * Tokens may join differently at a seam, so the cut is repeated until the prompt is short enough.
 */
function truncated(
  text: string,
  tokens: number,
  room: Room,
  encode: PromptEncoder,
  tokenizer: TokenizerPort,
): number[] {
  const target = room.limit - Math.min(room.maxTokens, Math.floor(room.limit / 2));
  const textIds = tokenizer.encode(text, { addSpecialTokens: false, parseSpecial: encode.parsesSpecial });
  const overhead = tokens - textIds.length;
  let keep = Math.max(0, target - overhead);
  for (;;) {
    const ids = encode(cutText(textIds, keep, room.truncate!, tokenizer));
    if (ids.length <= target || keep === 0) return ids;
    keep = Math.max(0, keep - (ids.length - target));
  }
}

function cutText(ids: readonly number[], keep: number, cut: Cut, tokenizer: TokenizerPort): string {
  const fromStart = cut === "tail" ? keep : cut === "head" ? 0 : Math.ceil(keep / 2);
  const start = decode(ids.slice(0, fromStart), tokenizer).replace(/\uFFFD+$/, "");
  const end = decode(ids.slice(ids.length - (keep - fromStart)), tokenizer).replace(/^\uFFFD+/, "");
  return start + end;
}

/** Text of ids. A cut inside a character leaves a replacement character, which the caller removes. */
function decode(ids: readonly number[], tokenizer: TokenizerPort): string {
  return ids.length === 0 ? "" : tokenizer.decode(ids, { skipSpecialTokens: false });
}
