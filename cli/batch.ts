import { PagesiftError } from "../engine/errors.ts";
import type { BatchPiece, FinishReason, GenerateRequest, PrefillProgress } from "../engine/types.ts";
import { exhausted } from "./answer.ts";
import { fitPrompt } from "./context.ts";
import { plural } from "../engine/text/format.ts";
import { samplingOf, sparseOf } from "./generate_options.ts";
import { parsePromptLines, type PromptLine } from "./jsonl.ts";
import { type LoadedModel, loadModel } from "./load.ts";
import type { GenerateFlags } from "./options/generate.ts";
import type { Output } from "./output.ts";
import { Progress } from "./progress.ts";
import { promptEncoder } from "./prompt_encoder.ts";
import { readText, STDIN } from "./read_text.ts";
import type { Session } from "./session.ts";
import { statsLines } from "./stats.ts";

/** Answers the prompts of `--jsonl`. */
export async function runBatch(
  flags: GenerateFlags,
  file: string,
  words: readonly string[],
  session: Session,
): Promise<void> {
  checkCombination(flags, file, words);
  const sparse = sparseOf(flags);
  const place = file === STDIN ? "stdin" : file;
  const lines = parsePromptLines(await readText(file, session, flags.lossy), place, flags.lossy);
  const progress = new Progress(session.output);
  const model = await loadModel(flags, sparse, session, progress);
  await using engine = model.engine;
  const requests = lines.map((line) => requestOf(line, flags, model, session.output));
  const onPrefill = (state: PrefillProgress, index: number): void => progress.prefill(state, `prompt ${index + 1}`);
  const pieces = engine.generateBatch(requests, { sparse, signal: session.interrupt.signal, onPrefill });
  const answers = await printInOrder(requests.length, pieces, session);
  const newTokens = answers.reduce((sum, { ids }) => sum + ids.length, 0);
  session.output.stats([...statsLines(engine.stats, model.name, newTokens), ["batch", plural(lines.length, "prompt")]]);
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
    : file === STDIN && flags.noStdin
    ? "--no-stdin"
    : words.length > 0
    ? `the prompt "${words[0]}"`
    : undefined;
  if (other !== undefined) throw new PagesiftError("usage", `--jsonl ${file} and ${other} exclude each other`);
}

function requestOf(line: PromptLine, flags: GenerateFlags, model: LoadedModel, output: Output): GenerateRequest {
  const options = { ...samplingOf(flags), ...line.options };
  const room = { limit: model.limit, maxTokens: options.maxTokens, truncate: flags.truncate };
  const { tokenizer } = model.engine;
  const name = `Prompt of ${line.place}`;
  const { ids, warning } = fitPrompt(line.prompt, name, room, promptEncoder(flags, tokenizer), tokenizer);
  if (warning !== undefined) output.warn(warning);
  return { prompt: ids, options };
}

/**
 * Prints a line for each request as soon as all earlier ones are done; what an abort kept from starting gets none.
 * Gives the answers.
 */
async function printInOrder(
  count: number,
  pieces: AsyncIterable<BatchPiece>,
  session: Session,
): Promise<BatchAnswer[]> {
  const answers = Array.from({ length: count }, () => new BatchAnswer());
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
  readonly ids: number[] = [];
  #text = "";

  add(piece: BatchPiece): void {
    if (piece.id >= 0) this.ids.push(piece.id);
    this.#text += piece.text;
    if (piece.finish !== undefined) this.finish = piece.finish;
  }

  toLine(): string {
    return JSON.stringify({ text: this.#text, ids: this.ids, finish: this.finish }) + "\n";
  }
}
