import denoConfig from "../../deno.json" with { type: "json" };
import { Engine } from "../../engine/engine.ts";
import { withSamplingDefaults } from "../../engine/sample/sampling_defaults.ts";
import { PagesiftError, reasonOf } from "../../engine/errors.ts";
import { engineError } from "../../engine/memory.ts";
import { ablate, fileMasks, pageMasks } from "../../inspect/ablate.ts";
import { type InspectedRun, type InspectRequest, record } from "../../inspect/record.ts";
import type { Ablation, ComparedScorer } from "../../inspect/recording.ts";
import type { Report } from "../../inspect/report.ts";
import { readTrace } from "../../inspect/trace.ts";
import { commandLine } from "../system_world.ts";
import { fitPrompt } from "../context.ts";
import { formatCount, plural } from "../../engine/text/format.ts";
import { samplingOf, sparseOf } from "../options/engine_options.ts";
import { hasNoPrompt, type NamedPrompt, readNamedPrompt } from "../input.ts";
import { checkAblations, checkInspectFlags, comparedScorers, selectorsOf, withScorers } from "./flags.ts";
import { reportOf, showReport, type TargetFiles, targetFiles } from "./show.ts";
import { findModel } from "../load.ts";
import type { InspectFlags } from "../options/inspect.ts";
import { Progress } from "../progress.ts";
import { promptCacheOf } from "../prompt_cache.ts";
import { checkStyle, promptEncoder, promptStyleName } from "../prompt_encoder.ts";
import type { CommandRun } from "../command_run.ts";

/** `pagesift inspect-pages`. */
export async function runInspect(flags: InspectFlags, words: readonly string[], session: CommandRun): Promise<void> {
  checkInspectFlags(flags, words);
  checkStyle(flags);
  const compare = comparedScorers(flags.compare);
  // An inspection shows what a selection reads, also where it would save too little time.
  const sparse = sparseOf({ ...flags, sparse: flags.sparse === "auto" ? "on" : flags.sparse });
  const files = targetFiles(flags);
  if (flags.replay !== undefined) return await replay(flags.replay, compare, flags, files, session);
  const sources = { ...flags, words };
  if (hasNoPrompt(sources, session.world.stdin)) throw nothingToDo();
  const prompt = await readNamedPrompt(sources, session);
  await using model = await load(flags, session);
  try {
    await inspect(model, prompt, { sparse, compare }, flags, files, session);
  } catch (error) {
    throw engineError(error);
  }
}

/** Shows a trace like the run that wrote it. */
async function replay(
  file: string,
  compare: readonly ComparedScorer[],
  flags: InspectFlags,
  files: TargetFiles,
  session: CommandRun,
): Promise<void> {
  const bytes = await session.interrupt.race(Deno.readFile(file)).catch((error) => {
    if (session.interrupt.signal.aborted) throw error;
    throw new PagesiftError("usage", `--replay "${file}" cannot be read: ${reasonOf(error)}`, { cause: error });
  });
  const recording = withScorers(await readTrace(bytes, file), compare, file);
  checkAblations(recording, flags.ablate, file);
  await showReport(reportOf(recording, flags), flags, files, session);
}

async function inspect(
  { engine, name }: InspectModel,
  prompt: NamedPrompt,
  how: Pick<InspectRequest, "sparse" | "compare">,
  flags: InspectFlags,
  files: TargetFiles,
  session: CommandRun,
): Promise<void> {
  const range = { layers: engine.config.numLayers, heads: engine.config.numKvHeads };
  selectorsOf(flags, { ...range, steps: flags.maxTokens });
  using run = await record(engine, { ...requestOf(flags, prompt, engine, session), ...how }, {
    version: denoConfig.version,
    model: name,
    command: commandLine(),
    date: new Date().toISOString(),
  });
  warnOfText(run, flags, session);
  const report = reportOf(run.recording, flags);
  if (flags.ablate) run.recording.ablations = await ablateAsked(run, report, flags, session);
  await showReport(report, flags, files, session);
}

/** Masks each of the listed pages, or the pages of each file. */
async function ablateAsked(
  run: InspectedRun,
  report: Report,
  { ablate: what, by, top }: InspectFlags,
  { output, interrupt }: CommandRun,
): Promise<Ablation[]> {
  const masks = what === "file" ? fileMasks(report) : pageMasks(report, by, top);
  if (run.recording.facts.layers.includes("window")) {
    output.warn("Layers with a sliding window still read masked pages inside the window");
  }
  output.status(`Replaying the answer ${plural(masks.length, "time")} with pages masked`);
  return await ablate(run, report, masks, interrupt.signal);
}

interface InspectModel extends AsyncDisposable {
  engine: Engine;
  name: string;
}

async function load(flags: InspectFlags, session: CommandRun): Promise<InspectModel> {
  const { interrupt, output } = session;
  const progress = new Progress(output);
  const { folder, name, label } = await findModel(flags, session, progress);
  progress.stage(`Loading ${label}`);
  const engine = await interrupt.race(Engine.load(folder, {
    device: flags.device,
    weights: flags.weights,
    kvType: flags.kvType,
    ...promptCacheOf(flags, name, session),
    signal: interrupt.signal,
    ...flags.adapter !== undefined && { adapter: flags.adapter },
    ...flags.ctxSize > 0 && { maxContext: flags.ctxSize },
    ...flags.threads !== undefined && { threads: flags.threads },
  }));
  output.clearStatus();
  output.notices(engine.notices);
  return { engine, name, [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose]() };
}

/** The prompt as `generate` encodes it, and how to inspect it. */
function requestOf(
  flags: InspectFlags,
  { prompt, parts }: NamedPrompt,
  engine: Engine,
  { output, interrupt }: CommandRun,
): Omit<InspectRequest, "sparse" | "compare"> {
  const limit = Math.min(flags.ctxSize || Infinity, engine.config.maxContext);
  const room = { limit, maxTokens: flags.maxTokens + 1, truncate: flags.truncate };
  const encode = promptEncoder(flags, engine.tokenizer);
  const { ids, warning } = interrupt.blocking(() => fitPrompt(prompt, "Prompt", room, encode, engine.tokenizer));
  if (warning !== undefined) output.warn(warning);
  output.stage(`Prompt of ${formatCount(ids.length)} tokens, ${promptStyleName(flags)}`);
  const progress = new Progress(output);
  const { maxTokens: _, ...asked } = samplingOf(flags);
  const sampling = withSamplingDefaults(engine.sampling, asked);
  return {
    ...{ ids, prompt, parts, sampling },
    steps: flags.maxTokens,
    signal: interrupt.signal,
    onPrefill: (state) => progress.prefill(state),
  };
}

/** Line numbers are known only for text that the tokens spell exactly as the files do. */
function warnOfText({ unmatched }: InspectedRun, flags: InspectFlags, { output }: CommandRun): void {
  if (unmatched === 0 || flags.chat || flags.system !== undefined) return;
  output.warn(
    `${formatCount(unmatched)} characters of the tokens' text are not in the prompt; they are listed as <template>`,
  );
}

function nothingToDo(): PagesiftError {
  const ways = `give a prompt, for example pagesift inspect-pages -f book.txt "Question", or use --replay FILE`;
  return new PagesiftError("usage", `Nothing to do; ${ways}; --help lists all options`);
}
