import { PagesiftError } from "../engine/errors.ts";
import type { BatchPiece, GenerateRequest, PrefillProgress } from "../engine/types.ts";
import { arrivingRequests } from "./arriving_lines.ts";
import { BatchAnswers } from "./batch_answers.ts";
import { fitPrompt } from "./context.ts";
import { plural } from "../engine/text/format.ts";
import { samplingOf, sparseOf, verifyOf } from "./options/engine_options.ts";
import { noPrompts, parsePromptLines, type PromptLine } from "./jsonl.ts";
import { type LoadedModel, loadModel } from "./load.ts";
import type { GenerateFlags } from "./options/generate.ts";
import { Progress } from "./progress.ts";
import { promptEncoder } from "./prompt_encoder.ts";
import { isStdin, readText } from "./read_text.ts";
import type { CommandRun } from "./command_run.ts";
import { statsLines } from "./stats.ts";

/** Answers the prompts of `--jsonl`: the lines of a file, or those of stdin as they arrive. */
export async function runBatch(
  flags: GenerateFlags,
  file: string,
  words: readonly string[],
  session: CommandRun,
): Promise<void> {
  checkCombination(flags, file, words);
  const sparse = sparseOf(flags);
  const { output, interrupt } = session;
  const lines = isStdin(file)
    ? undefined
    : parsePromptLines(await readText(file, session, flags.lossy), file, flags.lossy);
  const progress = new Progress(output);
  const model = await loadModel(flags, sparse, session, progress);
  await using engine = model.engine;
  const answers = new BatchAnswers(output, flags.ordered || lines !== undefined);
  const toRequest = (line: PromptLine, index: number): GenerateRequest => requestOf(line, index, flags, model, session);
  for (const { place, own } of lines ?? []) answers.add(place, own);
  const requests = lines
    ? interrupt.blocking(() => lines.map(toRequest))
    : arrivingRequests(toRequest, answers, flags.lossy, session);
  const onPrefill = (state: PrefillProgress, index: number): void => progress.prefill(state, `prompt ${index + 1}`);
  const parallel = flags.parallel === undefined ? {} : { parallel: flags.parallel };
  const options = { sparse, ...verifyOf(flags), signal: interrupt.signal, onPrefill, ...parallel };
  await receive(engine.generateBatch(requests, options), answers, session);
  output.stats([...statsLines(engine.stats, model.name, answers.newTokens), [
    "batch",
    plural(answers.count, "prompt"),
  ]]);
  if (answers.count === 0 && !interrupt.signal.aborted) throw noPrompts("stdin");
  answers.check();
}

/** Requests that an abort prevented get no line. */
async function receive(pieces: AsyncIterable<BatchPiece>, answers: BatchAnswers, session: CommandRun): Promise<void> {
  try {
    for await (const piece of pieces) answers.receive(piece);
  } catch (error) {
    if (error !== session.interrupt.signal.reason) throw error;
  }
  session.output.clearStatus();
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

function requestOf(
  line: PromptLine,
  index: number,
  flags: GenerateFlags,
  model: LoadedModel,
  { output }: CommandRun,
): GenerateRequest {
  // Each line has its own seed, so that equal prompts do not give equal answers.
  const seed = flags.seed === undefined ? {} : { seed: (flags.seed + index) % 2 ** 32 };
  const options = { ...samplingOf(flags), ...seed, ...line.options };
  const room = { limit: model.limit, maxTokens: options.maxTokens, truncate: flags.truncate };
  const { tokenizer } = model.engine;
  const name = `Prompt of ${line.place}`;
  const encode = promptEncoder(flags, tokenizer);
  const { ids, warning } = fitPrompt(line.prompt, name, room, encode, tokenizer);
  if (warning !== undefined) output.warn(warning);
  return { prompt: ids, options };
}
