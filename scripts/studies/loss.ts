/**
 * Prints the mean loss of models over a text, for each format of their weights, type of keys and values and budget of sparse prefill, with
 * the change relative to the first one and the divergence (KL) from it.
 *
 *     deno run -A scripts/studies/loss.ts MODEL … [--weights auto,q8_0] [--kv-type auto,q8,fp8] [--prefill off,1024] [--text FILE]
 *         [--tokens 2000] [--last 512] [--device cpu|cuda] [--adapter DIR]
 *
 * A prefill gives the logits. The loss is that of the last tokens, or of all from the second one on, in nats; the interval of a change is of
 * 95 %, from the differences of single tokens.
 */
import { parseArgs } from "@std/cli/parse-args";
import { basename, fromFileUrl } from "@std/path";
import { logSoftmax } from "../../engine/sample/log_probabilities.ts";
import type { DeviceChoice } from "../../engine/devices.ts";
import { Engine } from "../../engine/engine.ts";
import type { WeightFormat } from "../../engine/folder/weight_formats.ts";
import type { KvType } from "../../engine/pages/kv_type.ts";
import type { SparseOptions } from "../../engine/types.ts";
import type { Tensor } from "../../ffi/tensor.ts";
import { print } from "../output.ts";
import { commit, openSequence, proseIds } from "./measure.ts";

const BOOK = fromFileUrl(new URL("../../examples/war_of_the_worlds.txt", import.meta.url));
/** Half the width of an interval of 95 % in standard errors. */
const HALF_WIDTH = 1.96;

/** What a model says about every token of a text but the first. */
class Predictions {
  constructor(readonly ids: readonly number[], readonly logits: Float32Array, readonly vocabSize: number) {}

  /** In nats. */
  losses(): number[] {
    return this.ids.slice(1).map((id, at) => -(this.#logProbabilities(at)[id] ?? NaN));
  }

  /** Mean divergence of `other` from these predictions, in nats. */
  divergence(other: Predictions): number {
    return meanOf(
      this.ids.slice(1).map((_, at) => {
        const [own, others] = [this.#logProbabilities(at), other.#logProbabilities(at)];
        return own.reduce((sum, log, token) => sum + Math.exp(log) * (log - (others[token] ?? NaN)), 0);
      }),
    );
  }

  #logProbabilities(at: number): ReturnType<typeof logSoftmax> {
    return logSoftmax(this.logits.subarray(at * this.vocabSize, (at + 1) * this.vocabSize));
  }
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, {
    string: ["weights", "kv-type", "prefill", "text", "tokens", "last", "device", "adapter"],
  });
  const formats = String(flags.weights ?? "auto").split(",") as WeightFormat[];
  const kvTypes = String(flags["kv-type"] ?? "auto").split(",") as KvType[];
  const budgets = String(flags.prefill ?? "off").split(",");
  const text = String(flags.text ?? BOOK);
  const tokens = Number(flags.tokens ?? 2000);
  const last = Number(flags.last ?? tokens - 1);
  const device = (flags.device ?? "cpu") as DeviceChoice;
  const adapter = flags.adapter === undefined ? {} : { adapter: String(flags.adapter) };
  print(`commit ${await commit()}, ${tokens} tokens of ${basename(text)}`);
  let first: Predictions | undefined;
  for (const model of flags._.map(String)) {
    for (const weights of formats) {
      for (const kvType of kvTypes) {
        for (const budget of budgets) {
          const sparse = prefillOf(budget);
          await using engine = await Engine.load(model, { device, weights, kvType, sparse, ...adapter });
          const { vocabSize } = engine.config;
          const ids = proseIds(engine, text, tokens);
          const logits = await lastLogits(engine, ids, last + 1);
          const found = new Predictions(ids.slice(-last - 1), logits, vocabSize);
          first ??= found;
          const mib = (engine.stats.weightBytes / (1 << 20)).toFixed(0);
          const name = `${basename(model)} ${weights}, keys and values ${engine.kvType}, prefill ${budget}`;
          print(`${name}: ${mib} MiB, ${changeOf(found, first)}`);
        }
      }
    }
  }
}

/** Logits `[count, vocabSize]` of the last tokens: those of all tokens of a long text may not fit into memory. */
async function lastLogits(engine: Engine, ids: readonly number[], count: number): Promise<Float32Array> {
  const { session, sequence } = openSequence(engine, ids.length, undefined, { mode: "off" });
  using _session = session;
  const { model } = session.loaded;
  const { vocabSize } = engine.config;
  const out = new Float32Array(count * vocabSize);
  const onChunk = (hidden: Tensor, done: number): void => {
    const rows = hidden.shape[0] ?? 0;
    for (let row = Math.max(0, ids.length - count - (done - rows)); row < rows; row += model.maxLogitRows) {
      const logits = model.logits(hidden.rows(row, Math.min(model.maxLogitRows, rows - row)));
      out.set(logits.readFloats(), (done - rows + row - (ids.length - count)) * vocabSize);
    }
  };
  await session.prefill(sequence, ids, { onChunk });
  return out;
}

function prefillOf(budget: string): SparseOptions {
  return budget === "off" ? {} : { prefill: "on", prefillBudgetTokens: Number(budget) };
}

function changeOf(found: Predictions, first: Predictions): string {
  const [own, before] = [found.losses(), first.losses()];
  const changes = own.map((loss, at) => loss - (before[at] ?? NaN));
  const change = meanOf(changes);
  const error = Math.sqrt(meanOf(changes.map((value) => (value - change) ** 2)) / changes.length);
  const size = `${Math.abs(change).toFixed(4)} ± ${(HALF_WIDTH * error).toFixed(4)}`;
  const divergence = first.vocabSize === found.vocabSize ? `, KL ${first.divergence(found).toExponential(2)}` : "";
  return `loss ${meanOf(own).toFixed(4)}, ${change < 0 ? "-" : "+"}${size}${divergence}`;
}

if (import.meta.main) await main();
