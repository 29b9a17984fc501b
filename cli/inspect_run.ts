import denoConfig from "../deno.json" with { type: "json" };
import { Engine } from "../engine/engine.ts";
import { PagesiftError } from "../engine/errors.ts";
import { engineError } from "../engine/memory.ts";
import { type InspectedRun, record } from "../inspect/record.ts";
import type { Recording } from "../inspect/recording.ts";
import { makeReport } from "../inspect/report.ts";
import { commandLine } from "./command_line.ts";
import { fitPrompt } from "./context.ts";
import { formatCount } from "./format.ts";
import { samplingOf, sparseOf } from "./generate_options.ts";
import { hasNoPrompt, type NamedPart, readNamedPrompt } from "./input.ts";
import { checkInspectFlags, comparedScorers, selectorsOf } from "./inspect_flags.ts";
import { showReport } from "./inspect_show.ts";
import { findModel } from "./load.ts";
import type { InspectFlags } from "./options_inspect.ts";
import { Progress } from "./progress.ts";
import { checkStyle, promptEncoder, promptStyleName } from "./prompt_encoder.ts";
import type { Session } from "./session.ts";

/** `pagesift inspect-pages`. */
export async function runInspect(flags: InspectFlags, words: readonly string[], session: Session): Promise<void> {
  checkInspectFlags(flags, words);
  checkStyle(flags);
  const compare = comparedScorers(flags.compare);
  const sparse = sparseOf(flags);
  const sources = { ...flags, words };
  if (hasNoPrompt(sources, session.world.stdin)) throw nothingToDo();
  const prompt = await readNamedPrompt(sources, session);
  await using model = await load(flags, session);
  const { engine } = model;
  const range = { layers: engine.config.numLayers, heads: engine.config.numKvHeads };
  selectorsOf(flags, { ...range, steps: flags.maxTokens });
  try {
    using run = await record(engine, { ...requestOf(flags, prompt, engine, session), sparse, compare }, {
      version: denoConfig.version,
      model: model.name,
      command: commandLine(),
      date: new Date().toISOString(),
    });
    warnOfText(run, flags, session);
    show(run.recording, flags, engine, session);
  } catch (error) {
    throw engineError(error);
  }
}

function show(recording: Recording, flags: InspectFlags, engine: Engine, session: Session): void {
  const { layers, heads, steps } = recording.facts;
  const report = makeReport(recording, selectorsOf(flags, { layers: layers.length, heads, steps }));
  showReport(report, engine.tokenizer.decode(recording.facts.answerIds), flags, session);
}

interface InspectModel extends AsyncDisposable {
  engine: Engine;
  name: string;
}

async function load(flags: InspectFlags, session: Session): Promise<InspectModel> {
  const { interrupt, output } = session;
  const progress = new Progress(output);
  const { folder, name, label } = await findModel(flags, session, progress);
  progress.stage(`Loading ${label}`);
  const engine = await interrupt.race(Engine.load(folder, {
    device: flags.device,
    signal: interrupt.signal,
    ...flags.ctxSize > 0 && { maxContext: flags.ctxSize },
    ...flags.threads !== undefined && { threads: flags.threads },
  }));
  output.clearStatus();
  if (engine.deviceNotice !== undefined) output.warn(engine.deviceNotice);
  return { engine, name, [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose]() };
}

/** The prompt as `generate` would take it, and what is done with it. */
function requestOf(
  flags: InspectFlags,
  { prompt, parts }: { prompt: string; parts: NamedPart[] },
  engine: Engine,
  { output, interrupt }: Session,
): Omit<Parameters<typeof record>[1], "sparse" | "compare"> {
  const limit = Math.min(flags.ctxSize || Infinity, engine.config.maxContext);
  const room = { limit, maxTokens: flags.maxTokens + 1, truncate: flags.truncate };
  const { ids, warning } = fitPrompt(prompt, "Prompt", room, promptEncoder(flags, engine.tokenizer), engine.tokenizer);
  if (warning !== undefined) output.warn(warning);
  output.stage(`Prompt of ${formatCount(ids.length)} tokens, ${promptStyleName(flags)}`);
  const progress = new Progress(output);
  const { maxTokens: _, ...sampling } = samplingOf(flags);
  return {
    ...{ ids, prompt, parts, sampling },
    steps: flags.maxTokens,
    signal: interrupt.signal,
    onPrefill: (state) => progress.prefill(state),
  };
}

/** Lines are only known of text that the tokens still spell as the files did. */
function warnOfText({ unmatched }: InspectedRun, flags: InspectFlags, { output }: Session): void {
  if (unmatched === 0 || flags.chat || flags.system !== undefined) return;
  output.warn(
    `${
      formatCount(unmatched)
    } characters of the tokens' text were not found in the prompt; they are listed as <template>`,
  );
}

function nothingToDo(): PagesiftError {
  const ways = `give a prompt, as in: pagesift inspect-pages -f book.txt "Question", or --replay FILE`;
  return new PagesiftError("usage", `Nothing to do; ${ways}; --help lists all options`);
}
