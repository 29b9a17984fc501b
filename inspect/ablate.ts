import { Aborted, type EventLoopYield, eventLoopYield } from "../engine/event_loop.ts";
import type { DecodeAttention } from "../engine/model.ts";
import { tensorsOwnedBy } from "../engine/owned_tensors.ts";
import type { Selection } from "../ffi/kv_cache.ts";
import type { InspectedRun } from "./record.ts";
import { ANSWER, TEMPLATE } from "./prompt_text.ts";
import { type Ablation, pageLabel } from "./recording.ts";
import { type Order, rankPages, type Report } from "./report.ts";
import { readSelection } from "./scorers.ts";

/** Pages that are masked together. */
export interface Mask {
  label: string;
  pages: number[];
}

/** A mask for each page that the report lists. */
export function pageMasks(report: Report, by: Order, top: number): Mask[] {
  const last = firstAnswerPage(report);
  return rankPages(report, by, top).filter((page) => page < last).map((page) => ({
    label: pageLabel(page),
    pages: [page],
  }));
}

/**
 * A mask for each source. It covers the pages that contain more of this source than of any other. A source too short for that
 * gets the pages that contain any of it. Pages with tokens of the answer stay out of every mask.
 */
export function fileMasks(report: Report): Mask[] {
  const bySource = new Map<string, { most: number[]; some: number[] }>();
  for (let page = 0; page < firstAnswerPage(report); page++) {
    report.texts.places(page).forEach(({ source }, rank) => {
      if (source === TEMPLATE || source === ANSWER) return;
      const pages = bySource.get(source) ?? { most: [], some: [] };
      bySource.set(source, pages);
      (rank === 0 ? pages.most : pages.some).push(page);
    });
  }
  return [...bySource].map(([label, { most, some }]) => ({ label, pages: most.length > 0 ? most : some }));
}

/** A step must see its own token, so the page of that token cannot be masked. */
function firstAnswerPage({ recording: { facts } }: Report): number {
  return Math.floor(facts.promptTokens / facts.pageSize);
}

/**
 * Replays the steps of the answer with pages masked in every layer and returns how likely its tokens become. No other page replaces
 * a masked one. Layers with a sliding window still read their whole window.
 */
export async function ablate(
  run: InspectedRun,
  report: Report,
  masks: readonly Mask[],
  signal: AbortSignal,
): Promise<Ablation[]> {
  const yieldToEventLoop = eventLoopYield(signal);
  using replay = new MaskedReplay(run);
  const ablations: Ablation[] = [];
  try {
    const baseline = await replay.logProbability(new Set(), yieldToEventLoop);
    for (const { label, pages } of masks) {
      const logProbability = await replay.logProbability(new Set(pages), yieldToEventLoop);
      const mass = pages.reduce((sum, page) => sum + report.pages.mass[page]!, 0);
      ablations.push({ label, pages, logProbability, baseline, mass });
    }
  } catch (error) {
    if (!(error instanceof Aborted)) throw error; // an interrupt keeps the results so far
  }
  return ablations;
}

/** Runs the steps of an answer again over the prompt in the cache. */
class MaskedReplay implements Disposable {
  readonly #all: Selection;
  readonly #owned: DisposableStack;
  #mask: ReadonlySet<number> = new Set();

  constructor(readonly run: InspectedRun) {
    using owned = new DisposableStack();
    const createTensor = tensorsOwnedBy(owned, run.session.loaded.device);
    const { numKvHeads, maxPagesPerSequence } = run.session.pool.shape;
    this.#all = {
      selected: createTensor("i32", [1, numKvHeads, maxPagesPerSequence]),
      counts: createTensor("i32", [1, numKvHeads]),
    };
    this.#owned = owned.move();
  }

  /** Sum over the tokens that the steps gave, in nats. */
  async logProbability(mask: ReadonlySet<number>, yieldToEventLoop: EventLoopYield): Promise<number> {
    const { session, policy, sequence, recording } = this.run;
    const { promptTokens, answerIds, steps } = recording.facts;
    this.#mask = mask;
    session.truncate(sequence, promptTokens);
    let sum = 0;
    for (let step = 0; step < steps; step++) {
      await yieldToEventLoop();
      const { logits } = session.step([sequence], [answerIds[step]!], policy, { attend: this.#attend });
      sum += logSoftmaxAt(logits.readFloats(), answerIds[step + 1]!);
    }
    return sum;
  }

  readonly #attend: DecodeAttention = (layer, step, q, out) => {
    const { session: { pool: { cache } }, policy } = this.run;
    const rule = policy.layers[layer];
    if (rule?.kind === "window") return cache.attend(layer, q, step.sequences, out, { window: rule.tokens });
    const { selecting, sequences } = step;
    if (rule?.kind === "sparse" && selecting) {
      cache.choosePages(layer, q, sequences, selecting.scores, selecting.selection, policy);
      this.#leaveOut(selecting.selection, readSelection(selecting.selection));
      return cache.attend(layer, q, sequences, out, { selection: selecting.selection });
    }
    this.#leaveOut(this.#all, this.#everyPage());
    cache.attend(layer, q, sequences, out, { selection: this.#all });
  };

  #everyPage(): Int32Array[] {
    const { sequence, session: { pool } } = this.run;
    const pages = Int32Array.from(sequence.pages.keys());
    return Array.from({ length: pool.shape.numKvHeads }, () => pages);
  }

  /** Writes the pages of each head without the masked ones; a head with no page left reads the token's own page. */
  #leaveOut({ selected, counts }: Selection, pages: readonly Int32Array[]): void {
    const places = selected.shape[2] ?? 0;
    const own = this.run.sequence.pages.length - 1;
    const lists = pages.map((list) => list.filter((page) => !this.#mask.has(page)));
    const numbers = new Int32Array(pages.length * places);
    lists.forEach((list, head) => numbers.set(list.length > 0 ? list : [own], head * places));
    selected.write(numbers);
    counts.write(Int32Array.from(lists, (list) => Math.max(1, list.length)));
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** Logarithm of the probability of one id under logits. */
function logSoftmaxAt(logits: Float32Array, id: number): number {
  let most = -Infinity;
  for (const logit of logits) most = Math.max(most, logit);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - most);
  return logits[id]! - most - Math.log(sum);
}
