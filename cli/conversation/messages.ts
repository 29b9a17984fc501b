import { PagesiftError, reasonOf } from "../../engine/errors.ts";
import type { ChatMessage } from "../engine_port.ts";
import type { NamedPart } from "../input.ts";

/** A message of a conversation. `parts` are the texts that a question consists of, if it has several. */
export interface Message extends ChatMessage {
  parts?: readonly NamedPart[];
}

/** The messages before the first question stay when turns are forgotten. */
function firstTurn(messages: readonly ChatMessage[]): number {
  const first = messages.findIndex(({ role }) => role === "user");
  return first < 0 ? messages.length : first;
}

/** A conversation without its oldest turn: the first question and everything up to the next one. */
export function withoutOldestTurn<M extends ChatMessage>(messages: readonly M[]): M[] {
  const first = firstTurn(messages);
  const next = messages.findIndex(({ role }, index) => index > first && role === "user");
  return [...messages.slice(0, first), ...next < 0 ? [] : messages.slice(next)];
}

/** Number of questions. */
export function countTurns(messages: readonly ChatMessage[]): number {
  return messages.filter(({ role }) => role === "user").length;
}

/** A conversation with this system message instead of its own; an empty one leaves it without. */
export function withSystem(messages: readonly Message[], content: string): Message[] {
  const rest = messages.filter(({ role }) => role !== "system");
  return content === "" ? rest : [{ role: "system", content }, ...rest];
}

/** A conversation before its last question, and that question; no question if there is none. */
export function splitLastTurn(messages: readonly Message[]): { before: Message[]; question: Message | undefined } {
  const last = messages.findLastIndex(({ role }) => role === "user");
  return last < 0
    ? { before: [...messages], question: undefined }
    : { before: messages.slice(0, last), question: messages[last] };
}

/** A line of JSON per message. */
export function toLines(messages: readonly Message[]): string {
  return messages.map(({ role, content }) => JSON.stringify({ role, content }) + "\n").join("");
}

/** Messages from the lines of {@link toLines}. @throws {PagesiftError} of kind "usage" that names the line */
export function parseLines(text: string, file: string): Message[] {
  const lines = text.split("\n").map((line, index) => ({ line, place: `${file}:${index + 1}` }));
  const messages = lines.filter(({ line }) => line.trim() !== "").map(({ line, place }) => parseMessage(line, place));
  if (messages.length > 0) return messages;
  throw new PagesiftError("usage", `${file} contains no messages; expected lines such as ${EXAMPLE}`);
}

const EXAMPLE = '{"role": "user", "content": "..."}';

function parseMessage(line: string, place: string): Message {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new PagesiftError("usage", `${place}: not JSON: ${reasonOf(error)}`);
  }
  const { role, content } = (value ?? {}) as Record<string, unknown>;
  if (typeof role === "string" && typeof content === "string") return { role, content };
  throw new PagesiftError("usage", `${place}: expected a message ${EXAMPLE}`);
}
