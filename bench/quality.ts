/**
 * `bench quality`: facts found and prose predicted, token by token through sparse decode, against dense and the
 * exact oracle.
 */
import { countedBetween } from "../engine/run_stats.ts";
import { argmax, divergence, logSoftmax } from "../engine/sample/log_probabilities.ts";
import type { Engine } from "../engine/engine.ts";
import type { Tokenizer } from "../engine/text/tokenizer.ts";
import { countSparseLayers } from "../engine/pages/page_policy.ts";
import { type EventLoopYield, eventLoopYield } from "../engine/event_loop.ts";
import { Random } from "../engine/sample/random.ts";
import { checkSelections } from "./activity.ts";
import { type Fact, needleDocument, pairsDocument, question } from "./documents.ts";
import { usageError } from "./lists.ts";
import { isRuler, type QualityPass, type QualityPlan, type Task } from "./quality_plan.ts";
import { QualitySession } from "./quality_session.ts";
import { answerFields, emptyTally, proseFields, stepUs, type Tally } from "./quality_tally.ts";
import { definedOnly, type Hooks, type Row } from "./row.ts";
import { rulerDocument } from "./ruler.ts";
import { mean } from "./statistics.ts";
import { type EncodePrompt, longestTrial, scoreAnswer, type Trial, type TrialDocument } from "./trials.ts";

/** Every this many tokens of prose, the selected pages are compared with the exact masses. */
const MASS_EVERY = 8;

/** The documents of a task file. */
export interface FileTask {
  name: string;
  documents: readonly TrialDocument[];
}

/** What documents are made from. */
export interface Material {
  /** Token ids of the text: at least `proseNeed`. */
  prose: readonly number[];
  /** Encodes the prompts of tasks after RULER. */
  encode: EncodePrompt;
  files: readonly FileTask[];
}

interface Bench extends Material {
  engine: Engine;
  plan: QualityPlan;
  pass: QualityPass;
  session: QualitySession;
  signal: AbortSignal | undefined;
  yieldToEventLoop: EventLoopYield;
}

/** All documents of a task and length: the rows of one table, one per arm. */
interface Cell {
  task: string;
  /** Tokens of a document; of a file, the mean. */
  length: number;
  documents: number;
  measure: (document: number, tallies: Tally[]) => Promise<void>;
}

/**
 * Yields the rows of each page size, task and length. All arms answer the same questions about the same documents.
 *
 * @param name the model's name in rows
 * @throws {Error} unless the native counters show that sparse arms selected in every layer and step, and dense arms never
 */
export async function* benchQuality(
  engine: Engine,
  name: string,
  plan: QualityPlan,
  material: Material,
  { signal, onProgress }: Hooks = {},
): AsyncGenerator<Row[]> {
  const longest = longestOf(plan, material);
  let done = 0;
  for (const pass of plan.passes) {
    using session = new QualitySession(engine, pass, { ...plan, longest });
    const bench = { engine, plan, pass, session, ...material, signal, yieldToEventLoop: eventLoopYield(signal) };
    const cells = cellsOf(bench);
    const total = plan.passes.length * cells.reduce((sum, { documents }) => sum + documents, 0);
    for (const cell of cells) {
      const { task, length, documents, measure } = cell;
      const tallies = pass.arms.map(emptyTally);
      for (let document = 0; document < documents; document++) {
        onProgress?.({ done: done++, total, label: `${task}, document ${document + 1} of ${length} tokens` });
        await measure(document, tallies);
      }
      yield tallies.map((tally) => rowOf(bench, name, cell, tally, tallies[0] as Tally));
    }
  }
}

/** Tokens of text that the documents of a plan require. */
export function proseNeed({ lengths, documents, proseTokens, tasks }: QualityPlan): number {
  const longest = Math.max(0, ...lengths);
  const tail = tasks.includes("prose") ? proseTokens + 1 : 0;
  const apart = tasks.every(isRuler) ? 0 : (documents - 1) * offsetTokens(longest);
  return longest + tail + apart;
}

/** Tokens of the longest sequence of a plan and its files. */
function longestOf({ longest }: QualityPlan, { files }: Pick<Material, "files">): number {
  const lengths = files.flatMap(({ documents }) => documents.map(longestTrial));
  return lengths.reduce((most, length) => Math.max(most, length), longest);
}

function cellsOf(bench: Bench): Cell[] {
  const { plan: { lengths, tasks, documents }, files } = bench;
  return [
    ...lengths.flatMap((length) =>
      tasks.map((task): Cell => ({
        ...{ task, length, documents },
        measure: task === "prose"
          ? (document, tallies) => predict(bench, length, document, tallies)
          : (document, tallies) => answer(bench, makeDocument(bench, task, length, document), tallies),
      }))
    ),
    ...files.map(({ name, documents: own }): Cell => ({
      task: name,
      length: Math.round(mean(own.map(({ ids }) => ids.length))),
      documents: own.length,
      measure: (document, tallies) => answer(bench, own[document] as TrialDocument, tallies),
    })),
  ];
}

/** Documents start a quarter of their length apart in the text, so that short texts suffice. */
function offsetTokens(length: number): number {
  return Math.floor(length / 4);
}

/** The text from the start of a document on; after the last possible start, documents begin at the front again. */
function proseFrom({ prose }: Bench, length: number, document: number): readonly number[] {
  return prose.slice(document * offsetTokens(length) % (prose.length - length + 1));
}

function makeDocument(bench: Bench, task: Exclude<Task, "prose">, length: number, index: number): TrialDocument {
  const { engine: { tokenizer }, plan, encode } = bench;
  const prose = proseFrom(bench, length, index);
  const seed = (plan.seed + index * 7919 + length) % 2 ** 32;
  if (isRuler(task)) {
    const text = tokenizer.decode(prose.slice(0, length));
    const document = rulerDocument(task, encode, text, { lengthTokens: length, questions: plan.facts, seed });
    if (document.ids.length > plan.mostBudgetTokens) return document;
    throw usageError(
      `--task ${task} has a document of ${document.ids.length} tokens at --length ${length}, which does not exceed --budget ` +
        `${plan.mostBudgetTokens}, so nothing would be selected; raise --length, or lower --budget`,
    );
  }
  const make = task === "needle" ? needleDocument : pairsDocument;
  const { ids, asked } = make(tokenizer, prose, length, plan.facts, new Random(seed));
  return { ids, trials: asked.map((fact) => factTrial(tokenizer, fact)) };
}

function factTrial(tokenizer: Tokenizer, fact: Fact): Trial {
  const encode = (text: string): number[] => tokenizer.encode(text, { addSpecialTokens: false });
  return {
    ids: encode(question(fact)),
    ...{ accepted: [fact.value], match: "start", depth: fact.depth },
    answerTokens: encode(` ${fact.value}`).length + 1,
  };
}

/** Asks all arms the questions about a document. */
async function answer(bench: Bench, { ids, trials }: TrialDocument, tallies: Tally[]): Promise<void> {
  await bench.session.read(ids, bench.signal);
  for (const tally of tallies) {
    for (const trial of trials) {
      await bench.yieldToEventLoop();
      tally.answers.push({ score: scoreTrial(bench, trial, tally), depth: trial.depth });
    }
  }
}

/** Decodes question and answer token by token. Longer answers contain shorter ones, so a full score ends the answer. */
function scoreTrial({ engine: { tokenizer, config }, session }: Bench, trial: Trial, tally: Tally): number {
  const decoded: number[] = [];
  let score = 0;
  watched(session, tally, (step) => {
    let next = 0;
    for (const id of trial.ids) next = argmax(step(id));
    while (!config.eosTokenIds.includes(next)) {
      decoded.push(next);
      score = scoreAnswer(tokenizer.decode(decoded), trial);
      if (score === 1 || decoded.length >= trial.answerTokens) return;
      next = argmax(step(next));
    }
  });
  return score;
}

/** Feeds all arms the tokens after a document and compares their predictions. */
async function predict(bench: Bench, length: number, document: number, tallies: Tally[]): Promise<void> {
  const { plan, session, signal, yieldToEventLoop } = bench;
  const prose = proseFrom(bench, length, document);
  await session.read(prose.slice(0, length), signal);
  const fed = prose.slice(length, length + plan.proseTokens + 1);
  const dense: Float64Array[] = [];
  for (const tally of tallies) {
    await yieldToEventLoop();
    watched(session, tally, (step) => {
      for (let at = 0; at < plan.proseTokens; at++) {
        const expected = logSoftmax(step(fed[at] ?? 0, at % MASS_EVERY === 0));
        if (tally.arm.name === "dense") dense.push(expected);
        const reference = dense[at] ?? expected;
        tally.losses.push(-(expected[fed[at + 1] ?? 0] ?? NaN));
        tally.divergences.push(divergence(reference, expected));
        tally.agreements.push(argmax(reference) === argmax(expected));
      }
    });
  }
}

/** Runs steps of an arm after the document, times them, and checks them against the native counters. */
function watched(
  session: QualitySession,
  { arm, mass, stepSeconds }: Tally,
  work: (step: (id: number, looks?: boolean) => Float32Array<ArrayBuffer>) => void,
): void {
  session.begin(arm);
  const before = session.counters();
  let steps = 0;
  work((id, looks = false) => {
    steps++;
    const started = performance.now();
    const logits = session.step(id, arm, looks ? mass : undefined);
    if (!looks) stepSeconds.push((performance.now() - started) / 1000);
    return logits;
  });
  const counted = countedBetween(before, session.counters());
  const sparseLayers = countSparseLayers(session.engine.policy(arm.sparse));
  if (arm.name !== "oracle") return checkSelections(arm.name, steps * sparseLayers, counted);
  if (sparseLayers > 0 && counted.pagesAttended >= counted.pagesInContext) {
    throw new Error("The oracle arm read every page, so its row would measure dense attention");
  }
}

function rowOf({ engine, pass }: Bench, model: string, { task, length }: Cell, tally: Tally, dense: Tally): Row {
  const { arm } = tally;
  return definedOnly<Row>({
    subject: "quality",
    arm: arm.name,
    model,
    batch: 1,
    task,
    context_tokens: length,
    dtype: engine.kvType,
    page_size: pass.pageSize,
    budget_tokens: arm.budgetTokens,
    scorer: arm.scorer,
    samples: tally.stepSeconds.length,
    median_us: stepUs(tally),
    ...tally.losses.length > 0 ? proseFields(tally, dense) : answerFields(tally, dense),
  });
}
