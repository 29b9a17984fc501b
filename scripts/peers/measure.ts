/** Measures alternating arms: prompts first, then decoding at growing depths. */
import { timingOf } from "../../bench/statistics.ts";
import type { Row } from "../../bench/row.ts";
import { log } from "../output.ts";
import type { PeerArm } from "./arms.ts";
import { type LoadWatch, measureUndisturbed } from "./machine_load.ts";

/** The plan of a run. */
export interface Plan {
  /** Tokens in the cache before decoding; ascending. */
  depths: readonly number[];
  /** Timed steps of a repetition. */
  decodeTokens: number;
  /** Lengths of prompts. */
  prompts: readonly number[];
  repetitions: number;
  /** At least the deepest depth and `decodeTokens + 1` more. */
  ids: readonly number[];
}

/** The times of an arm at one setting. */
export interface Measured {
  arm: PeerArm;
  settings: { prompt_tokens: number; depth_tokens: 0 } | { decode_tokens: number; depth_tokens: number };
  /** Seconds of a prompt or of one step, one per repetition. */
  seconds: number[];
  /** Repetitions that were discarded because other programs ran. */
  disturbed: number;
  /** Repetitions that count although other programs ran. */
  noisy: number;
}

/** How often a disturbed measurement is repeated, and where progress is printed. */
export interface MeasureOptions {
  tries: number;
  log: (line: string) => void;
}

const DEFAULT_OPTIONS: MeasureOptions = { tries: 12, log };

/** Runs `repetitions` rounds; in each, every arm once. */
async function takeTurns(
  arms: readonly PeerArm[],
  settings: Measured["settings"],
  repetitions: number,
  repeat: (measure: () => Promise<number>) => ReturnType<typeof measureUndisturbed>,
  measure: (arm: PeerArm) => Promise<number>,
): Promise<Measured[]> {
  const results = arms.map((arm): Measured => ({ arm, settings, seconds: [], disturbed: 0, noisy: 0 }));
  for (let round = 0; round < repetitions; round++) {
    for (const result of results) {
      const { seconds, disturbed, undisturbed } = await repeat(() => measure(result.arm));
      result.seconds.push(seconds);
      result.disturbed += disturbed;
      result.noisy += undisturbed ? 0 : 1;
    }
  }
  return results;
}

/** The arms that prefill prompts themselves: ours are several arms over one cache. */
function withCache(arms: readonly PeerArm[]): PeerArm[] {
  return arms.filter(({ name }) => name !== "sparse");
}

/** Measures the plan, cell by cell. */
export async function* measureAll(
  arms: readonly PeerArm[],
  watch: LoadWatch,
  plan: Plan,
  { tries, log }: MeasureOptions = DEFAULT_OPTIONS,
): AsyncGenerator<Measured[]> {
  const { ids, decodeTokens, repetitions } = plan;
  const repeat = (measure: () => Promise<number>): ReturnType<typeof measureUndisturbed> =>
    measureUndisturbed(watch, measure, tries);
  for (const tokens of plan.prompts) {
    const prompt = ids.slice(0, tokens);
    const settings = { prompt_tokens: tokens, depth_tokens: 0 as const };
    yield await takeTurns(withCache(arms), settings, repetitions, repeat, (arm) => arm.append(0, prompt));
  }
  let have = 0;
  for (const depth of plan.depths) {
    for (const arm of withCache(arms)) {
      log(`${arm.name} (${arm.settings}): filling ${depth} tokens`);
      await arm.append(have, ids.slice(have, depth));
    }
    have = depth;
    const fed = ids.slice(depth, depth + decodeTokens + 1);
    const settings = { decode_tokens: decodeTokens, depth_tokens: depth };
    const step = async (arm: PeerArm): Promise<number> => await arm.decode(depth, fed) / decodeTokens;
    yield await takeTurns(arms, settings, repetitions, repeat, step);
  }
}

/** A row as in docs/bench.md, without `dtype`, so that a peer with an f16 cache matches ours with bf16. */
export function rowOf(measured: Measured, facts: Pick<Row, "model" | "program" | "device" | "command">): Row {
  const { arm, settings, seconds } = measured;
  const program = `${facts.program}, KV ${arm.settings}`;
  return { subject: "generate", arm: arm.name, batch: 1, ...settings, ...timingOf(seconds), ...facts, program };
}

/** Of several settings of one program, the fastest. */
export function fastest(results: readonly Measured[]): Measured {
  const time = ({ seconds }: Measured): number => timingOf(seconds).median_us;
  return results.reduce((best, one) => time(one) < time(best) ? one : best);
}

/** One result for people. */
export function describe({ arm, settings, seconds, disturbed, noisy }: Measured): string {
  const { median_us, low_us = NaN, high_us = NaN } = timingOf(seconds);
  const what = "prompt_tokens" in settings
    ? `prompt of ${settings.prompt_tokens}: ${(settings.prompt_tokens / median_us * 1e6).toFixed(0)} tokens/s`
    : `depth ${settings.depth_tokens}: a step`;
  const times = [median_us, low_us, high_us].map((us) => (us / 1000).toFixed(3));
  const noise = `${disturbed} disturbed and repeated${noisy > 0 ? `, ${noisy} disturbed but counted` : ""}`;
  return `${arm.name} (${arm.settings}), ${what} ${times[0]} ms (${times[1]} to ${times[2]}; ${noise})`;
}
