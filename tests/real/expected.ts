/** Real models against what transformers computes for the same file (scripts/studies/real_logits.py) and against llama.cpp. */
import { fromFileUrl } from "@std/path";
import type { Engine } from "../../engine/engine.ts";
import { hasRealModel, type RealModelName } from "../../scripts/gate/real_models.ts";
import { isolateLibrary } from "../support/device.ts";

/** What the script stored. */
export interface Expected {
  prompt_ids: number[];
  greedy_ids: number[];
  sampled_ids: number[];
  /** `logits` are those of the sampled ids. */
  positions: { position: number; best_id: number; logits: number[] }[];
  /** Where the model's own tokenizer.json is at hand. */
  tokenizer?: { text: string; ids: number[] }[];
}

export function expectedOf(name: RealModelName): Expected {
  return JSON.parse(Deno.readTextFileSync(fromFileUrl(new URL(`../fixtures/real/${name}.json`, import.meta.url))));
}

/** Defines a test that is counted as ignored where the model was not fetched (scripts/gate/test_real.ts). */
export function realTest(model: RealModelName, name: string, work: () => Promise<void>): void {
  Deno.test({
    name,
    ignore: !hasRealModel(model),
    fn: async () => {
      isolateLibrary();
      await work();
    },
  });
}

/** How far our logits are from the expected ones. */
export interface Distance {
  /** Root of the mean square of all differences, and the spread of the expected logits. */
  typical: number;
  spread: number;
  /** By how much the expected best id is behind ours, at most. */
  margin: number;
}

export async function distanceOf(engine: Engine, expected: Expected): Promise<Distance> {
  const { vocabSize } = engine.config;
  const logits = await engine.logits(expected.prompt_ids);
  let [squares, margin] = [0, 0];
  const all: number[] = [];
  for (const { position, best_id, logits: wanted } of expected.positions) {
    const row = logits.subarray(position * vocabSize, (position + 1) * vocabSize);
    const best = row.reduce((most, value) => Math.max(most, value), -Infinity);
    margin = Math.max(margin, best - (row[best_id] ?? NaN));
    expected.sampled_ids.forEach((id, at) => squares += ((row[id] ?? NaN) - (wanted[at] ?? NaN)) ** 2);
    all.push(...wanted);
  }
  const mean = all.reduce((sum, value) => sum + value, 0) / all.length;
  const spread = Math.sqrt(all.reduce((sum, value) => sum + (value - mean) ** 2, 0) / all.length);
  return { typical: Math.sqrt(squares / all.length), spread, margin };
}
