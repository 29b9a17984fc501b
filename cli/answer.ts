import { PagesiftError } from "../engine/errors.ts";
import type { FinishReason, GenerateOptions } from "../engine/types.ts";
import { describeSampling } from "../engine/sample/sampling_defaults.ts";
import { plural } from "../engine/text/format.ts";
import type { LoadedModel } from "./load.ts";
import type { CommandRun } from "./command_run.ts";
import { statsLines } from "./stats.ts";

/** How the answer is printed. */
export interface AnswerStyle {
  json: boolean;
  noStream: boolean;
}

/** What a generation gave. */
export interface Answer {
  text: string;
  ids: number[];
  finish: FinishReason;
}

/** Generates, prints the answer as it arrives or, if the style asks for it, at the end, then the stats. */
export async function printAnswer(
  ids: readonly number[],
  options: GenerateOptions,
  model: LoadedModel,
  style: AnswerStyle,
  session: CommandRun,
): Promise<void> {
  const { output } = session;
  const streams = !style.json && !style.noStream;
  const answer = await collectAnswer(ids, options, model, session, streams ? (text) => output.answer(text) : () => {});
  if (style.json) {
    output.result(JSON.stringify({ ...answer, stats: jsonStats(model, options) }) + "\n");
  } else {
    if (!streams) output.answer(answer.text);
    if (answer.finish !== "aborted" || answer.text !== "") output.endAnswer();
  }
  const drawn: [string, string][] = options.temperature
    ? [["sampling", describeSampling(options)], ["seed", String(options.seed)]]
    : [];
  output.stats([...statsLines(model.engine.stats, model.name, answer.ids.length), ...drawn, ["finish", answer.finish]]);
  if (answer.finish === "kv_exhausted") throw exhausted(answer.ids.length);
}

/** Drawn here rather than in the engine, so that the stats can show it. */
export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]!;
}

/** The printed text remains; the exit code shows that it is incomplete. */
export function exhausted(tokens: number): PagesiftError {
  const problem = `The KV pool ran out of pages after ${plural(tokens, "token")}`;
  return new PagesiftError(
    "memory",
    `${problem}; lower --max-tokens or --ctx-size, or shorten the prompt`,
  );
}

/** Generates to the end or to the abort of the options' signal, and passes the text on as it arrives. */
export async function collectAnswer(
  ids: readonly number[],
  options: GenerateOptions,
  { engine }: LoadedModel,
  { output }: CommandRun,
  onText: (text: string) => void,
): Promise<Answer> {
  const answer: Answer = { text: "", ids: [], finish: "aborted" };
  try {
    for await (const piece of engine.generate(ids, options)) {
      if (piece.id >= 0) answer.ids.push(piece.id);
      answer.text += piece.text;
      if (piece.finish !== undefined) answer.finish = piece.finish;
      onText(piece.text);
    }
  } catch (error) {
    if (error !== options.signal?.reason) throw error;
  }
  output.clearStatus();
  return answer;
}

function jsonStats({ engine, name }: LoadedModel, { temperature, seed }: GenerateOptions): Record<string, unknown> {
  return { model: name, ...engine.stats, ...temperature ? { seed } : {} };
}
