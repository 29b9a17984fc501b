import { PagesiftError } from "../engine/errors.ts";
import { printAnswer, randomSeed } from "./answer.ts";
import { runBatch } from "./batch.ts";
import { type Command, defineCommand } from "./command.ts";
import { fitPrompt } from "./context.ts";
import { samplingOf, sparseOf, verifyOf } from "./options/engine_options.ts";
import { hasNoPrompt, type PromptSources, readPrompt } from "./input.ts";
import { type LoadedModel, loadModel } from "./load.ts";
import { type GenerateFlags, generateOptions } from "./options/generate.ts";
import { Progress } from "./progress.ts";
import { checkStyle, promptEncoder, promptStyleName, usesTemplate } from "./prompt_encoder.ts";
import { isStdin } from "./read_text.ts";
import type { CommandRun } from "./command_run.ts";
import { formatCount } from "../engine/text/format.ts";
import { withSamplingDefaults } from "../engine/sample/sampling_defaults.ts";
import type { World } from "./world.ts";
import type { GenerateOptions, PrefillProgress } from "../engine/types.ts";

const help = {
  usage: [
    "generate [OPTIONS] [PROMPT]",
    'generate [OPTIONS] -f FILE "QUESTION"',
    'generate [OPTIONS] "QUESTION" < FILE',
    "generate --chat [OPTIONS] [-f FILE]",
  ],
  examples: [
    'pagesift generate "Once upon a time" -n 60',
    'pagesift generate --temp 0.8 --seed 1 "Who tells this story?" < book.txt',
  ],
  description: [
    "Continues a prompt with a language model and prints the new text to stdout.",
    "The prompt is stdin (unless it is a terminal), then the files of -f, then -p, then PROMPT, with a blank line\n" +
    "between parts. The newline at the end of a file or of stdin is dropped when nothing follows it.",
  ],
  notes: [
    "Token counts accept 32k or 32K, which both mean 32 x 1024. If a flag is given twice, the last one wins.\n" +
    '"--" ends the options.',
    "Exit codes: 0 done, or stdout was closed by its reader; 1 internal error, or output not writable; 2 usage or\n" +
    "input; 3 model invalid; 4 prompt longer than the context; 5 no usable device; 6 out of memory; 7 network or\n" +
    "cache; 8 numeric failure. Ctrl-C prints the text so far and the stats, then exits by the signal; a second\n" +
    "Ctrl-C exits at once.",
  ],
};

/** `pagesift generate`: a prompt to streamed text. */
export const generate: Command = defineCommand({
  name: "generate",
  summary: "Continue a prompt, from a question to a whole book",
  help,
  options: generateOptions,
  run,
});

async function run(flags: GenerateFlags, words: readonly string[], session: CommandRun): Promise<void> {
  checkStyle(flags);
  const verify = verifyOf(flags);
  const needsLines = flags.ordered ? "--ordered" : flags.parallel !== undefined ? "--parallel" : undefined;
  if (needsLines !== undefined && flags.jsonl === undefined) {
    throw new PagesiftError("usage", `${needsLines} is about the lines of --jsonl; omit it, or add --jsonl -`);
  }
  if (flags.jsonl !== undefined) return await runBatch(flags, flags.jsonl, words, session);
  const sparse = sparseOf(flags);
  const sources = { ...flags, words };
  if (startsConversation(flags, sources, session.world)) {
    const { runConversation } = await import("./conversation/conversation.ts");
    return await runConversation(flags, sparse, session);
  }
  if (hasNoPrompt(sources, session.world.stdin)) throw nothingToDo();
  const prompt = await readPrompt(sources, session);
  await runPrompt(prompt, flags, { sparse, ...verify }, session);
}

/** Whether the flags ask for a chat, stdin is a terminal, and nothing on the command line is a question. */
function startsConversation(
  flags: GenerateFlags,
  { prompt, files, words, noStdin }: PromptSources,
  world: World,
): boolean {
  return usesTemplate(flags) && world.stdin.isTerminal() && !noStdin && prompt.length + words.length === 0 &&
    !files.some(isStdin);
}

/** How decode steps read the cache. */
type Reading = Required<Pick<GenerateOptions, "sparse">> & Pick<GenerateOptions, "verify">;

async function runPrompt(
  prompt: string,
  flags: GenerateFlags,
  reading: Reading,
  session: CommandRun,
): Promise<void> {
  const progress = new Progress(session.output);
  const model = await loadModel(flags, reading.sparse, session, progress);
  await using _engine = model.engine;
  const ids = fittedIds(prompt, flags, model, session);
  const asked = { ...samplingOf(flags), seed: flags.seed ?? randomSeed() };
  const sampling = withSamplingDefaults(model.engine.sampling, asked);
  const onPrefill = (state: PrefillProgress): void => progress.prefill(state);
  const options = { ...sampling, ...reading, signal: session.interrupt.signal, onPrefill };
  await printAnswer(ids, options, model, flags, session);
}

function fittedIds(
  prompt: string,
  flags: GenerateFlags,
  { engine, limit }: LoadedModel,
  { output, interrupt }: CommandRun,
): number[] {
  const room = { limit, maxTokens: flags.maxTokens, truncate: flags.truncate };
  const encode = promptEncoder(flags, engine.tokenizer);
  const { ids, warning } = interrupt.blocking(() => fitPrompt(prompt, "Prompt", room, encode, engine.tokenizer));
  if (warning !== undefined) output.warn(warning);
  output.stage(`Prompt of ${formatCount(ids.length)} tokens, ${promptStyleName(flags)}`);
  return ids;
}

function nothingToDo(): PagesiftError {
  const ways =
    `give a prompt, for example pagesift generate "Once upon a time" or pagesift generate "Question" < book.txt`;
  return new PagesiftError("usage", `Nothing to do; ${ways}; --help lists all options`);
}
