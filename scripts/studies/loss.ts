/**
 * Prints the mean loss of models over a text, for each format of their weights, with the change relative to the first one.
 *
 *     deno run -A scripts/studies/loss.ts MODEL … [--weights auto,q8_0] [--text FILE] [--tokens 2000] [--device cpu|cuda]
 *
 * A dense prefill gives the logits. The loss is that of the tokens from the second one on, in nats; the interval of a change is of 95 %,
 * from the differences of single tokens.
 */
import { parseArgs } from "@std/cli/parse-args";
import { basename, fromFileUrl } from "@std/path";
import { logSoftmax } from "../../bench/quality_tally.ts";
import type { DeviceChoice } from "../../engine/devices.ts";
import { Engine } from "../../engine/engine.ts";
import type { WeightFormat } from "../../engine/folder/weight_formats.ts";
import { print } from "../output.ts";
import { commit, proseIds } from "./measure.ts";

const BOOK = fromFileUrl(new URL("../../examples/war_of_the_worlds.txt", import.meta.url));
/** Half the width of an interval of 95 % in standard errors. */
const HALF_WIDTH = 1.96;

/** Loss of every token but the first, in nats. */
async function losses(engine: Engine, ids: readonly number[]): Promise<number[]> {
  const logits = await engine.logits(ids);
  const { vocabSize } = engine.config;
  return ids.slice(1).map((id, at) => -(logSoftmax(logits.subarray(at * vocabSize, (at + 1) * vocabSize))[id] ?? NaN));
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, { string: ["weights", "text", "tokens", "device"] });
  const models = flags._.map(String);
  const formats = String(flags.weights ?? "auto").split(",") as WeightFormat[];
  const text = String(flags.text ?? BOOK);
  const tokens = Number(flags.tokens ?? 2000);
  print(`commit ${await commit()}, ${tokens} tokens of ${basename(text)}`);
  let first: number[] | undefined;
  for (const model of models) {
    for (const weights of formats) {
      await using engine = await Engine.load(model, { device: (flags.device ?? "cpu") as DeviceChoice, weights });
      const found = await losses(engine, proseIds(engine, text, tokens));
      first ??= found;
      const changes = found.map((loss, at) => loss - (first?.[at] ?? NaN));
      const change = meanOf(changes);
      const error = Math.sqrt(meanOf(changes.map((value) => (value - change) ** 2)) / changes.length);
      const sign = change < 0 ? "-" : "+";
      const size = `${Math.abs(change).toFixed(4)} ± ${(HALF_WIDTH * error).toFixed(4)}`;
      const mib = (engine.stats.weightBytes / (1 << 20)).toFixed(0);
      print(`${basename(model)} ${weights}: ${mib} MiB, loss ${meanOf(found).toFixed(4)}, ${sign}${size}`);
    }
  }
}

if (import.meta.main) await main();
