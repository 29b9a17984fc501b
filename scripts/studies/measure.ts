/** Helpers of the studies: a session for one long sequence, prose for it, medians, and the measured commit. */
import type { Engine } from "../../engine/engine.ts";
import type { Sequence } from "../../engine/pages/sequence.ts";
import type { Session } from "../../engine/session.ts";
import type { SparseOptions } from "../../engine/types.ts";

/** A session with one sequence of at most `maxTokens`: prompt and everything decoded after it. */
export function openSequence(
  engine: Engine,
  maxTokens: number,
  pageSize = 8,
  sparse: SparseOptions = {},
): { session: Session; sequence: Sequence } {
  const need = { totalTokens: maxTokens, longestTokens: maxTokens, maxSequences: 1 };
  const session = engine.openSession(engine.policy({ ...sparse, pageSize }), need);
  return { session, sequence: session.openSequence() };
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

/** The measured commit, marked if files differ from it. */
export async function commit(): Promise<string> {
  const git = async (...args: string[]): Promise<string> =>
    new TextDecoder().decode((await new Deno.Command("git", { args, stdout: "piped", stderr: "null" }).output()).stdout)
      .trim();
  const changed = await git("status", "--porcelain", "--", "csrc", "engine", "ffi");
  return `${await git("rev-parse", "--short", "HEAD")}${changed ? "+changes" : ""}`;
}

/** Prose of about `tokens` tokens from a text file. @throws {Error} if the file is too short */
export function proseIds(engine: Engine, file: string, tokens: number, firstCharacter = 0): number[] {
  const text = Deno.readTextFileSync(file).replaceAll(/(?<!\n)\r?\n(?!\r?\n)/g, " ");
  const ids = engine.tokenizer.encode(text.slice(firstCharacter, firstCharacter + tokens * 6));
  if (ids.length < tokens) {
    throw new Error(`"${file}" has ${ids.length} tokens, expected at least ${tokens}; name a longer text`);
  }
  return ids.slice(0, tokens);
}
