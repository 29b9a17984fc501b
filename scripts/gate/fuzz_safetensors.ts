/**
 * Feeds the readers of a model folder (safetensors, config.json, shard index, tokenizer.json) and of GGUF files with mutated files and prints what came of it. Fails on
 * anything but acceptance or an error of kind "model", on an input that takes over a second, on a buffer larger than its file, and on a
 * file that is accepted although it must not be.
 *
 *     deno run -A scripts/gate/fuzz_safetensors.ts [--inputs 1000000] [--seed 1] [--keep FOLDER]
 *
 * `--keep` writes one input per kind of outcome, for the regression corpus in tests/fixtures/fuzz.
 */
import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { FuzzFolder, type Input, InputMaker } from "./fuzz_targets.ts";
import { print } from "../output.ts";
import { Mutator } from "./mutate.ts";

const MAX_SECONDS = 1;
/** Bytes that reading a small file may always allocate: the fixed start that every reader reads. */
const SMALL_BYTES = 64;

/** The outcome of a run. */
export interface FuzzReport {
  inputs: number;
  accepted: number;
  rejected: number;
  slowestSeconds: number;
  /** The largest buffer that a reader allocated. */
  largestBytes: number;
  /** The largest excess of a buffer over its file, in bytes. */
  largestExcessBytes: number;
  failures: string[];
}

/** Records the sizes of buffers that are allocated during its lifetime. */
class BufferWatch implements Disposable {
  readonly #original = globalThis.Uint8Array;
  largest = 0;

  constructor() {
    globalThis.Uint8Array = new Proxy(this.#original, {
      construct: (target, args, newTarget) => {
        if (typeof args[0] === "number") this.largest = Math.max(this.largest, args[0]);
        return Reflect.construct(target, args, newTarget === globalThis.Uint8Array ? target : newTarget);
      },
    });
  }

  [Symbol.dispose](): void {
    globalThis.Uint8Array = this.#original;
  }
}

/** Called with every input and whether it was accepted. */
type OnInput = (input: Input, accepted: boolean) => void;

/** Tries `inputs` inputs of a seed. */
export async function fuzz(inputs: number, seed: number, onInput: OnInput = () => {}): Promise<FuzzReport> {
  const report = { inputs, accepted: 0, rejected: 0, slowestSeconds: 0, largestBytes: 0, largestExcessBytes: 0 };
  const failures: string[] = [];
  const maker = new InputMaker(new Mutator(seed));
  using folder = await FuzzFolder.open();
  for (let index = 0; index < inputs && failures.length < 10; index++) {
    const input = maker.next();
    using watch = new BufferWatch();
    const started = performance.now();
    try {
      const accepted = await folder.accepts(input);
      report[accepted ? "accepted" : "rejected"]++;
      onInput(input, accepted);
    } catch (error) {
      failures.push(`input ${index} of seed ${seed} (${input.target}): ${(error as Error).stack ?? error}`);
    }
    const seconds = (performance.now() - started) / 1000;
    report.slowestSeconds = Math.max(report.slowestSeconds, seconds);
    report.largestBytes = Math.max(report.largestBytes, watch.largest);
    const excess = watch.largest - Math.max(SMALL_BYTES, input.bytes.length);
    report.largestExcessBytes = Math.max(report.largestExcessBytes, excess);
    if (seconds > MAX_SECONDS) failures.push(`input ${index} of seed ${seed} took ${seconds.toFixed(1)} s`);
    if (excess > 0) failures.push(`input ${index} of seed ${seed} allocated a buffer of ${watch.largest} bytes`);
  }
  return { ...report, failures };
}

/** Writes the first input of each target and outcome. */
function keeper(folder: string): OnInput {
  const counts: Record<string, number> = {};
  Deno.mkdirSync(folder, { recursive: true });
  return ({ target, bytes }, accepted) => {
    const kind = `${target}-${accepted ? "taken" : "refused"}`;
    const count = counts[kind] = (counts[kind] ?? 0) + 1;
    if (count <= 5) Deno.writeFileSync(join(folder, `${kind}-${count}.bin`), bytes);
  };
}

async function main(): Promise<number> {
  const flags = parseArgs(Deno.args, { string: ["inputs", "seed", "keep"] });
  const [inputs, seed] = [Number(flags["inputs"] ?? 1_000_000), Number(flags["seed"] ?? 1)];
  if (!Number.isSafeInteger(inputs) || inputs < 1 || !Number.isSafeInteger(seed)) {
    print("fuzz_safetensors: --inputs and --seed require whole numbers");
    return 2;
  }
  const started = performance.now();
  const report = await fuzz(inputs, seed, flags["keep"] === undefined ? undefined : keeper(String(flags["keep"])));
  const rows = [
    ["inputs tried", report.inputs.toLocaleString("en-US")],
    ["accepted", report.accepted.toLocaleString("en-US")],
    ["rejected", report.rejected.toLocaleString("en-US")],
    ["slowest", `${(report.slowestSeconds * 1000).toFixed(1)} ms`],
    ["largest buffer", `${report.largestBytes} bytes, ${report.largestExcessBytes} beyond its file`],
    ["time", `${((performance.now() - started) / 1000).toFixed(0)} s`],
  ];
  for (const [name, value] of rows) print(`${name?.padEnd(16)}${value}`);
  for (const failure of report.failures) print(failure);
  return report.failures.length === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main());
