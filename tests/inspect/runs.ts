/** Inspected runs of real models for tests. */
import { fromFileUrl } from "@std/path";
import type { Engine } from "../../engine/engine.ts";
import type { PrefillProgress, SamplingOptions, SparseOptions } from "../../engine/types.ts";
import { type InspectedRun, record } from "../../inspect/record.ts";
import type { ComparedScorer } from "../../inspect/recording.ts";
import { loadFolder } from "../support/fixture_model.ts";

const WAR = fromFileUrl(new URL("../../examples/war_of_the_worlds.txt", import.meta.url));
const PLACE_OF_FACT = 12_376;

/** What the shipped model is asked. */
export const QUESTION = "What is the code for the silver lantern? The code for the silver lantern is";
/** A stretch of a book, without the fact and with it. */
export const WITHOUT_FACT = Deno.readTextFileSync(WAR).slice(PLACE_OF_FACT - 3000, PLACE_OF_FACT - 1500);
export const WITH_FACT = Deno.readTextFileSync(WAR).slice(PLACE_OF_FACT - 1500, PLACE_OF_FACT + 1500);

export function loadShipped(): Promise<Engine> {
  return loadFolder(fromFileUrl(new URL("../../models/default", import.meta.url)));
}

export interface RunOptions {
  steps?: number;
  sparse?: SparseOptions;
  sampling?: SamplingOptions;
  compare?: readonly ComparedScorer[];
  answerIds?: readonly number[];
  onPrefill?: (progress: PrefillProgress) => unknown;
}

/** Inspects a prompt of one file and a question. */
export function inspectText(engine: Engine, text: string, options: RunOptions = {}): Promise<InspectedRun> {
  const prompt = `${text}\n\n${QUESTION}`;
  const parts = [
    { name: "file.txt", start: 0, end: text.length + 2 },
    { name: "<prompt>", start: text.length + 2, end: prompt.length },
  ];
  return inspectIds(engine, engine.tokenizer.encode(prompt), { prompt, parts }, options);
}

export function inspectIds(
  engine: Engine,
  ids: readonly number[],
  { prompt, parts }: { prompt: string; parts: { name: string; start: number; end: number }[] },
  {
    steps = 4,
    sparse = { mode: "on", budgetTokens: 128 },
    sampling = {},
    compare = [],
    answerIds,
    onPrefill = () => {},
  }: RunOptions = {},
): Promise<InspectedRun> {
  return record(engine, {
    ...{ ids, prompt, parts, steps, sampling, sparse, compare },
    ...answerIds && { answerIds },
    signal: new AbortController().signal,
    onPrefill,
  }, { version: "0", model: "test", command: "test", date: "2026-01-01T00:00:00Z" });
}
