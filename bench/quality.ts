/**
 * `bench quality`: facts found and prose predicted, token by token through sparse decode, against dense and the
 * exact oracle.
 */
import type { Engine } from "../engine/engine.ts";
import { countSparseLayers } from "../engine/pages/page_policy.ts";
import { type EventLoopYield, eventLoopYield } from "../engine/event_loop.ts";
import { Random } from "../engine/sample/random.ts";
import { checkSelections } from "./activity.ts";
import { countedBetween } from "./arms.ts";
import { type Document, type Fact, needleDocument, pairsDocument, question } from "./documents.ts";
import type { QualityPlan, Task } from "./quality_plan.ts";
import { QualitySession } from "./quality_session.ts";
import {
  argmax,
  divergence,
  emptyTally,
  logSoftmax,
  proseFields,
  retrievalFields,
  stepUs,
  type Tally,
} from "./quality_tally.ts";
import { definedOnly, type Hooks, type Row } from "./row.ts";

/** Every this many tokens of prose, the selected pages are compared with the exact masses. */
const MASS_EVERY = 8;

interface Bench {
  engine: Engine;
  plan: QualityPlan;
  session: QualitySession;
  /** Token ids of the text. */
  prose: readonly number[];
  signal: AbortSignal | undefined;
  yieldToEventLoop: EventLoopYield;
}

/**
 * Yields the rows of each task and length. All arms answer the same questions about the same documents.
 *
 * @param name the model's name in rows
 * @param prose token ids of at least `proseNeed` tokens
 * @throws {Error} unless the native counters show that sparse arms selected in every layer and step, and dense arms never
 */
export async function* benchQuality(
  engine: Engine,
  name: string,
  plan: QualityPlan,
  prose: readonly number[],
  { signal, onProgress }: Hooks = {},
): AsyncGenerator<Row[]> {
  using session = new QualitySession(engine, plan);
  const bench = { engine, plan, session, prose, signal, yieldToEventLoop: eventLoopYield(signal) };
  const total = plan.lengths.length * plan.tasks.length * plan.documents;
  let done = 0;
  for (const length of plan.lengths) {
    for (const task of plan.tasks) {
      const tallies = plan.arms.map(emptyTally);
      for (let document = 0; document < plan.documents; document++) {
        onProgress?.({ done: done++, total, label: `${task}, document ${document + 1} of ${length} tokens` });
        await (task === "prose" ? predict : retrieve)(bench, task, length, document, tallies);
      }
      yield tallies.map((tally) => rowOf(bench, name, task, length, tally, tallies[0] as Tally));
    }
  }
}

/** Tokens of text that the documents of a plan require. */
export function proseNeed({ lengths, documents, proseTokens, tasks }: QualityPlan): number {
  const longest = Math.max(...lengths);
  const tail = tasks.includes("prose") ? proseTokens + 1 : 0;
  return longest + tail + (documents - 1) * offsetTokens(longest);
}

/** Documents start a quarter of their length apart in the text, so that short texts suffice. */
function offsetTokens(length: number): number {
  return Math.floor(length / 4);
}

/** Asks all arms for the facts of a document. */
async function retrieve(bench: Bench, task: Task, length: number, document: number, tallies: Tally[]): Promise<void> {
  const { engine: { tokenizer }, plan, session, prose, signal, yieldToEventLoop } = bench;
  const random = new Random((plan.seed + document * 7919 + length) % 2 ** 32);
  const make = task === "needle" ? needleDocument : pairsDocument;
  const { ids, asked }: Document = make(
    tokenizer,
    prose.slice(document * offsetTokens(length)),
    length,
    plan.facts,
    random,
  );
  await session.read(ids, signal);
  for (const tally of tallies) {
    for (const fact of asked) {
      await yieldToEventLoop();
      tally.answers.push({ right: ask(bench, fact, tally), depth: fact.depth });
    }
  }
}

/** Whether the answer begins with the value of the fact; question and answer are decoded token by token. */
function ask({ engine: { tokenizer }, session }: Bench, fact: Fact, tally: Tally): boolean {
  const asked = tokenizer.encode(question(fact), { addSpecialTokens: false });
  const most = tokenizer.encode(` ${fact.value}`, { addSpecialTokens: false }).length + 1;
  const answer: number[] = [];
  watched(session, tally, asked.length + most - 1, (step) => {
    let next = 0;
    for (const id of asked) next = argmax(step(id));
    answer.push(next);
    while (answer.length < most) answer.push(argmax(step(answer.at(-1) ?? 0)));
  });
  return tokenizer.decode(answer).trim().startsWith(fact.value);
}

/** Feeds all arms the tokens after a document and compares their predictions. */
async function predict(bench: Bench, _task: Task, length: number, document: number, tallies: Tally[]): Promise<void> {
  const { plan, session, prose, signal, yieldToEventLoop } = bench;
  const first = document * offsetTokens(length);
  await session.read(prose.slice(first, first + length), signal);
  const fed = prose.slice(first + length, first + length + plan.proseTokens + 1);
  const dense: Float64Array[] = [];
  for (const tally of tallies) {
    await yieldToEventLoop();
    watched(session, tally, plan.proseTokens, (step) => {
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

/** Runs `steps` steps of an arm after the document, times them, and checks them against the native counters. */
function watched(
  session: QualitySession,
  { arm, mass, stepSeconds }: Tally,
  steps: number,
  work: (step: (id: number, looks?: boolean) => Float32Array<ArrayBuffer>) => void,
): void {
  session.begin(arm);
  const before = session.counters();
  work((id, looks = false) => {
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

function rowOf({ engine, plan }: Bench, model: string, task: Task, length: number, tally: Tally, dense: Tally): Row {
  const { arm } = tally;
  return definedOnly<Row>({
    subject: "quality",
    arm: arm.name,
    model,
    batch: 1,
    task,
    context_tokens: length,
    dtype: engine.kvType,
    page_size: plan.pageSize,
    budget_tokens: arm.budgetTokens,
    scorer: arm.scorer,
    samples: tally.stepSeconds.length,
    median_us: stepUs(tally),
    ...task === "prose" ? proseFields(tally, dense) : retrievalFields(tally, dense),
  });
}
