import type { Engine } from "../engine/engine.ts";
import { eventLoopYield } from "../engine/event_loop.ts";
import { statisticsFor } from "../engine/pages/kv_pool.ts";
import type { PagePolicy } from "../engine/pages/page_policy.ts";
import { pagesFor } from "../engine/pages/page_table.ts";
import { Request } from "../engine/request.ts";
import { emptyStats } from "../engine/run_stats.ts";
import type { Sequence } from "../engine/pages/sequence.ts";
import type { Session } from "../engine/session.ts";
import type { EngineStats, FinishReason, PrefillProgress, SamplingOptions, SparseOptions } from "../engine/types.ts";
import { PagesiftError } from "../engine/errors.ts";
import type { Selection } from "../ffi/cache_options.ts";
import type { Tensor } from "../ffi/tensor.ts";
import { PageObserver } from "./observer.ts";
import { PromptReads } from "./prompt_reads.ts";
import { ANSWER, locateParts, type PromptPart, type PromptText, spellTokens } from "./prompt_text.ts";
import type { ComparedScorer, Facts, Recording } from "./recording.ts";

/** What is inspected. */
export interface InspectRequest {
  ids: readonly number[];
  /** The prompt and its parts, before truncation and chat template. */
  prompt: string;
  parts: readonly PromptPart[];
  /** Most decode steps to observe. */
  steps: number;
  sampling: SamplingOptions & { stop?: string[] };
  sparse: SparseOptions;
  compare: readonly ComparedScorer[];
  /** Tokens of an answer to this prompt, to observe again. Default: an answer is generated. */
  answerIds?: readonly number[];
  signal: AbortSignal;
  onPrefill: (progress: PrefillProgress) => void;
}

/** The facts that the caller supplies. */
export type RunFacts = Pick<Facts, "version" | "model" | "command" | "date">;

/** A finished run that still holds its cache, so its steps can run again with pages masked. */
export interface InspectedRun extends Disposable {
  recording: Recording;
  stats: EngineStats;
  session: Session;
  policy: PagePolicy;
  sequence: Sequence;
  /** Characters of the tokens' text that were not found in the prompt, special tokens left out. */
  unmatched: number;
}

/** Generates like the engine, one request alone, and observes every decode step. */
export async function record(engine: Engine, request: InspectRequest, about: RunFacts): Promise<InspectedRun> {
  const policy = engine.policy(request.sparse);
  using owned = new DisposableStack();
  const session = owned.use(openSession(engine, policy, request));
  using observer = new PageObserver(session.pool, policy, request.compare);
  // The engine has just read the prompt of an answer that is observed again.
  if (request.answerIds) engine.lendPrompts(session);
  session.pool.readPromptsBy(policy);
  const sequence = session.pool.openSequence(request.ids);
  const answer = request.answerIds === undefined ? generate : repeat;
  const promptReads = new PromptReads();
  const { ids, finish, stats } = await answer(engine, request, { session, observer, promptReads, sequence });
  if (observer.steps === 0) throw nothingWatched(finish);
  const { text, unmatched } = promptText(engine, request, ids);
  const facts = {
    ...about,
    ...factsOf(session, request, observer),
    answerIds: ids,
    answerText: engine.tokenizer.decode(ids),
    ...factsOfStats(stats, finish),
  };
  const { rows, figures, comparison } = observer;
  const totals = observer.totals(facts.pages);
  const reads = promptReads.byPage(facts.pages);
  const recording = {
    ...{ facts, text, totals, rows, figures },
    ...comparison && { comparison },
    ...reads && { promptReads: reads },
  };
  const open = owned.move();
  return { recording, stats, session, policy, sequence, unmatched, [Symbol.dispose]: () => open.dispose() };
}

function openSession(engine: Engine, policy: PagePolicy, { ids, steps, compare }: InspectRequest): Session {
  const longestTokens = Math.min(ids.length + steps, engine.config.maxContext);
  const need = { totalTokens: longestTokens, longestTokens, maxSequences: 1 };
  return engine.openSession(policy, need, statisticsFor(compare));
}

interface Run {
  session: Session;
  observer: PageObserver;
  promptReads: PromptReads;
  sequence: Sequence;
}

interface Answer {
  ids: number[];
  finish: FinishReason;
  stats: EngineStats;
}

/** Reads what is not known of the prompt, and the answer that the request contains. */
async function repeat(
  _engine: Engine,
  { ids, answerIds = [], signal, onPrefill }: InspectRequest,
  { session, observer, promptReads, sequence }: Run,
): Promise<Answer> {
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  const reusedTokens = sequence.length;
  const onChunk = (_hidden: Tensor, doneTokens: number): void =>
    onPrefill({ doneTokens: reusedTokens + doneTokens, reusedTokens, totalTokens: ids.length, seconds: seconds() });
  const afterSelection = (_layer: number, selection: Selection): void => promptReads.add(selection);
  await session.prefill(sequence, ids.slice(reusedTokens), { signal, onChunk, afterSelection });
  const yieldToEventLoop = eventLoopYield(signal);
  for (const id of answerIds.slice(0, -1)) {
    await yieldToEventLoop();
    session.step([sequence], [id], observer.policy, { observer });
  }
  return { ids: [...answerIds], finish: "length", stats: emptyStats(session.facts) };
}

async function generate(
  engine: Engine,
  request: InspectRequest,
  { session, observer, promptReads, sequence }: Run,
): Promise<Answer> {
  const limits = { eosTokenIds: engine.config.eosTokenIds, maxContext: engine.config.maxContext };
  const options = { ...request.sampling, maxTokens: request.steps + 1 };
  const one = new Request(0, request.ids, options, engine.tokenizer.stream(), limits, sequence);
  const { signal, onPrefill } = request;
  const afterSelection = (_layer: number, selection: Selection): void => promptReads.add(selection);
  const ids: number[] = [];
  let finish: FinishReason = "aborted";
  for await (const piece of session.generate([one], observer.policy, { signal, onPrefill, observer, afterSelection })) {
    if (piece.finish === "numeric") throw new PagesiftError("numeric", piece.error ?? "The logits are not finite");
    if (piece.id >= 0) ids.push(piece.id);
    if (piece.finish) finish = piece.finish;
  }
  return { ids, finish, stats: session.stats ?? emptyStats(session.facts) };
}

function nothingWatched(finish: FinishReason): PagesiftError {
  const why = finish === "context"
    ? "the prompt fills the context"
    : `the answer ended with its first token (${finish})`;
  return new PagesiftError("usage", `No decode step to inspect: ${why}; change the prompt or the context`);
}

/** The texts of prompt and answer, with the places of the prompt's parts. */
function promptText(
  engine: Engine,
  { ids, prompt, parts }: InspectRequest,
  answerIds: readonly number[],
): { text: PromptText; unmatched: number } {
  // The last token of the answer never enters the context, so no page contains it.
  const all = [...ids, ...answerIds.slice(0, -1)];
  const { text, tokenEnds } = spellTokens(engine.tokenizer, all);
  const promptEnd = tokenEnds[ids.length - 1] ?? 0;
  const { spans, unmatched } = locateParts(text.slice(0, promptEnd), prompt, parts);
  if (text.length > promptEnd) spans.push({ source: ANSWER, start: promptEnd, end: text.length, line: 0 });
  const { tokenizer } = engine;
  const special = ids.filter((id) => tokenizer.isSilent(id)).map((id) =>
    tokenizer.decode([id], { skipSpecialTokens: false })
  );
  return { text: { text, tokenEnds, spans }, unmatched: Math.max(0, unmatched - special.join("").length) };
}

function factsOf(
  { loaded: { config }, facts: { device } }: Session,
  { ids }: InspectRequest,
  { policy, steps, selectedSteps, pagesRead, pagesDense }: PageObserver,
): Omit<Facts, keyof RunFacts | "answerIds" | "answerText" | keyof ReturnType<typeof factsOfStats>> {
  const { pageSize, budgetPages, scorer, lambda, sinkPages, recentPages } = policy;
  return {
    ...{ selectedSteps, pagesRead, pagesDense },
    ...{ device, steps, pageSize, budgetPages, scorer, lambda, sinkPages },
    promptTokens: ids.length,
    pages: pagesFor(ids.length + steps, pageSize),
    layers: policy.layers.map(({ kind }) => kind === "sparse" && selectedSteps === 0 ? "dense" : kind),
    heads: config.numKvHeads,
    queryHeads: config.numQueryHeads,
    firstRecentPage: Math.max(sinkPages, pagesFor(ids.length + 1, pageSize) - recentPages),
  };
}

function factsOfStats(
  { prefillSeconds, decodeSeconds }: EngineStats,
  finish: FinishReason,
): Pick<Facts, "prefillSeconds" | "decodeSeconds" | "finish"> {
  return { prefillSeconds, decodeSeconds, finish };
}
