import { PagesiftError } from "../engine/errors.ts";
import type { BatchPiece, FinishReason, GenerateRequest, PrefillProgress } from "../engine/types.ts";
import { exhausted } from "./answer.ts";
import { fitPrompt } from "./context.ts";
import { formatCount, plural } from "../engine/text/format.ts";
import { samplingOf, sparseOf } from "./options/engine_options.ts";
import { parsePromptLines, type PromptLine } from "./jsonl.ts";
import { type LoadedModel, loadModel } from "./load.ts";
import type { GenerateFlags } from "./options/generate.ts";
import type { Output } from "./output.ts";
import { Progress } from "./progress.ts";
import { promptEncoder } from "./prompt_encoder.ts";
import { isStdin, readText } from "./read_text.ts";
import type { CommandRun } from "./command_run.ts";
import { statsLines } from "./stats.ts";

/** Answers the prompts of `--jsonl`. */
export async function runBatch(
  flags: GenerateFlags,
  file: string,
  words: readonly string[],
  session: CommandRun,
): Promise<void> {
  checkCombination(flags, file, words);
  const sparse = sparseOf(flags);
  const place = isStdin(file) ? "stdin" : file;
  const lines = parsePromptLines(await readText(file, session, flags.lossy), place, flags.lossy);
  const progress = new Progress(session.output);
  const model = await loadModel(flags, sparse, session, progress);
  await using engine = model.engine;
  const requests = lines.map((line, index) => requestOf(line, index, flags, model, session));
  const onPrefill = (state: PrefillProgress, index: number): void => progress.prefill(state, `prompt ${index + 1}`);
  const pieces = engine.generateBatch(requests, { sparse, signal: session.interrupt.signal, onPrefill });
  const answers = await printInOrder(lines, pieces, session);
  const newTokens = answers.reduce((sum, { ids }) => sum + ids.length, 0);
  session.output.stats([...statsLines(engine.stats, model.name, newTokens), ["batch", plural(lines.length, "prompt")]]);
  failOnNumeric(lines, answers, session.output);
  const starved = answers.find(({ finish }) => finish === "kv_exhausted");
  if (starved !== undefined) throw exhausted(starved.ids.length);
}

function checkCombination(flags: GenerateFlags, file: string, words: readonly string[]): void {
  const other = flags.prompt.length > 0
    ? "--prompt"
    : flags.files.length > 0
    ? "--file"
    : flags.json
    ? "--json"
    : isStdin(file) && flags.noStdin
    ? "--no-stdin"
    : words.length > 0
    ? `the prompt "${words[0]}"`
    : undefined;
  if (other !== undefined) throw new PagesiftError("usage", `--jsonl ${file} and ${other} exclude each other`);
}

/** Reports the lines whose logits were not finite; the other lines are printed and correct. */
function failOnNumeric(lines: readonly PromptLine[], answers: readonly BatchAnswer[], output: Output): void {
  const failed = answers.flatMap(({ finish, error }, index) => finish === "numeric" ? [{ index, error }] : []);
  for (const { index, error } of failed) output.warn(`${lines[index]!.place}: ${error}`);
  if (failed.length === 0) return;
  throw new PagesiftError(
    "numeric",
    `${formatCount(failed.length)} of ${plural(answers.length, "prompt")} gave logits that are not finite; ` +
      'their lines have "finish":"numeric"',
  );
}

function requestOf(
  line: PromptLine,
  index: number,
  flags: GenerateFlags,
  model: LoadedModel,
  { interrupt, output }: CommandRun,
): GenerateRequest {
  // Each line has its own seed, so that equal prompts do not give equal answers.
  const seed = flags.seed === undefined ? {} : { seed: (flags.seed + index) % 2 ** 32 };
  const options = { ...samplingOf(flags), ...seed, ...line.options };
  const room = { limit: model.limit, maxTokens: options.maxTokens, truncate: flags.truncate };
  const { tokenizer } = model.engine;
  const name = `Prompt of ${line.place}`;
  const encode = promptEncoder(flags, tokenizer);
  const { ids, warning } = interrupt.blocking(() => fitPrompt(line.prompt, name, room, encode, tokenizer));
  if (warning !== undefined) output.warn(warning);
  return { prompt: ids, options };
}

/**
 * Prints a line for each request as soon as all earlier requests are done. Requests that an abort prevented get no line.
 * Returns the answers.
 */
async function printInOrder(
  lines: readonly PromptLine[],
  pieces: AsyncIterable<BatchPiece>,
  session: CommandRun,
): Promise<BatchAnswer[]> {
  const answers = lines.map(({ own }) => new BatchAnswer(own));
  let printed = 0;
  const printDone = (): void => {
    for (; answers[printed]?.finish !== undefined; printed++) session.output.result(answers[printed]!.toLine());
  };
  try {
    for await (const piece of pieces) {
      answers[piece.index]!.add(piece);
      printDone();
    }
  } catch (error) {
    if (error !== session.interrupt.signal.reason) throw error;
  }
  session.output.clearStatus();
  return answers;
}

class BatchAnswer {
  finish: FinishReason | undefined;
  error: string | undefined;
  readonly ids: number[] = [];
  #text = "";

  /** @param own the user's own fields of the line, copied to the output */
  constructor(readonly own: Readonly<Record<string, unknown>>) {}

  add(piece: BatchPiece): void {
    if (piece.id >= 0) this.ids.push(piece.id);
    this.#text += piece.text;
    if (piece.finish !== undefined) this.finish = piece.finish;
    if (piece.error !== undefined) this.error = piece.error;
  }

  toLine(): string {
    return JSON.stringify({ ...this.own, text: this.#text, ids: this.ids, finish: this.finish, error: this.error }) +
      "\n";
  }
}
