/**
 * Long runs on a tiny model that check for leaks of pages, handles and memory.
 *
 *     deno run -A scripts/gate/soak.ts [requests|jsonl|tokens|stdin] [--count N]
 *
 * requests  10,000 short requests in batches; all pages are free and no handle is open afterwards
 * jsonl     10,000 lines through `generate --jsonl`; as many lines come out, in order
 * tokens    300,000 generated tokens; the process does not grow
 * stdin     2 GiB into `generate`; it refuses them and reads no more than its limit
 */
import { getHeapSpaceStatistics } from "node:v8";
import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { Engine } from "../../engine/engine.ts";
import { Request } from "../../engine/request.ts";
import { liveHandles } from "../../ffi/library.ts";
import { print } from "../output.ts";
import { ROOT } from "../release/native_library.ts";

const MODEL = join(ROOT, "tests", "fixtures", "hf", "llama-f32");
const MAIN = join(ROOT, "cli", "main.ts");
const MIB = 2 ** 20;
/** Allowed growth of a process after its first tenth: garbage that is not collected yet. */
const GROWTH_BYTES = 24 * MIB;
/** At most 256 MiB of input, the buffer it was copied from, and Deno itself. */
const STDIN_PEAK_BYTES = 1200 * MIB;

/** The facts of a run, and its problem, if any. */
export interface SoakResult {
  facts: string;
  problem?: string;
}

function result(facts: string, holds: boolean, problem: string): SoakResult {
  return holds ? { facts } : { facts, problem };
}

/** Runs short requests of all kinds through one pool, `batch` at a time. */
export async function soakRequests(count: number, batch = 100): Promise<SoakResult> {
  const before = liveHandles();
  let finished = 0;
  let used = 0;
  {
    await using engine = await Engine.load(MODEL, { device: "cpu", threads: 2 });
    const policy = engine.policy({ mode: "on", budgetTokens: 16 });
    using session = engine.openSession(policy, { totalTokens: 8 * 64, longestTokens: 64, maxSequences: 8 });
    const limits = { eosTokenIds: engine.config.eosTokenIds, maxContext: engine.config.maxContext };
    for (let first = 0; first < count; first += batch) {
      const requests = Array.from({ length: Math.min(batch, count - first) }, (_, index) => {
        const ids = Array.from({ length: 1 + (first + index) % 40 }, (_, place) => 3 + (first + 7 * place) % 600);
        const options = { maxTokens: 1 + (first + index) % 9, temperature: index % 2, seed: index };
        return new Request(index, ids, options, engine.tokenizer.stream(), limits);
      });
      for await (const { finish } of session.generate(requests)) if (finish) finished++;
      used = Math.max(used, session.pool.allocator.numUsed);
    }
  }
  const left = liveHandles() - before;
  const facts = `${finished} requests, at most ${used} pages in use after a batch, ${left} handles open`;
  return result(facts, finished === count && used === 0 && left === 0, "pages, handles or requests were lost");
}

/** Starts the command on the tiny model, with pipes. */
function spawnGenerate(...more: string[]): Deno.ChildProcess {
  const args = ["run", "-A", "--no-check", MAIN, "generate", "--device", "cpu", "-m", MODEL, ...more];
  return new Deno.Command(Deno.execPath(), { args, stdin: "piped", stdout: "piped", stderr: "piped" }).spawn();
}

/** Passes lines through the command. */
export async function soakJsonl(count: number): Promise<SoakResult> {
  const lines = Array.from(
    { length: count },
    (_, index) => JSON.stringify({ prompt: `Line ${index}`, max_tokens: 1 + index % 3 }),
  );
  const child = spawnGenerate("--jsonl", "-", "--ordered");
  const output = child.output();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(lines.join("\n")));
  await writer.close();
  const { code, stdout, stderr } = await output;
  const answers = new TextDecoder().decode(stdout).trimEnd().split("\n").map((line) => JSON.parse(line));
  const right = answers.filter(({ ids, finish }, index) => finish && ids.length >= 1 && ids.length <= 1 + index % 3);
  const facts = `${answers.length} of ${count} lines, ${right.length} with the requested length, code ${code}`;
  return result(facts, code === 0 && stderr.length === 0 && right.length === count, new TextDecoder().decode(stderr));
}

/**
 * Memory of the process without V8's space for new objects, which grows in steps up to 64 MiB regardless of its
 * contents.
 */
function residentBytes(): number {
  const young = getHeapSpaceStatistics().find((space) => space.space_name === "new_space");
  return Deno.memoryUsage().rss - (young?.space_size ?? 0);
}

/** Generates `count` tokens and watches the memory of the process. */
async function soakTokens(count: number): Promise<SoakResult> {
  await using engine = await Engine.load(MODEL, { device: "cpu", threads: 2 });
  let tokens = 0;
  let base: number | undefined;
  let peak = 0;
  while (tokens < count) {
    const options = { maxTokens: Math.min(2000, count - tokens), temperature: 1, seed: tokens, stop: ["\u0000never"] };
    for await (const { id } of engine.generate([1, 2 + tokens % 600], options)) if (id >= 0) tokens++;
    const bytes = residentBytes();
    if (tokens >= count / 10) base ??= bytes;
    if (base !== undefined) peak = Math.max(peak, bytes);
  }
  const growth = peak - (base ?? peak);
  const facts = `${tokens} tokens, ${(peak / MIB).toFixed(0)} MiB at most, ${
    (growth / MIB).toFixed(0)
  } MiB over the first tenth`;
  return result(facts, growth <= GROWTH_BYTES, "the process grew");
}

/** Peak resident memory of a process, in bytes. */
function peakBytes(pid: number): number {
  try {
    return 1024 * Number(Deno.readTextFileSync(`/proc/${pid}/status`).match(/VmHWM:\s+(\d+)/)?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** Writes up to `count` MiB to the command's stdin, as far as it reads. */
export async function soakStdin(count: number): Promise<SoakResult> {
  const child = spawnGenerate();
  const [stdout, stderr] = [new Response(child.stdout).text(), new Response(child.stderr).text()];
  const writer = child.stdin.getWriter();
  const piece = new Uint8Array(MIB).fill(0x61);
  let [written, peak] = [0, 0];
  for (; written < count; written++) {
    peak = Math.max(peak, peakBytes(child.pid));
    if (await writer.write(piece).then(() => false, () => true)) break;
  }
  await writer.close().catch(() => {});
  const { code } = await child.status;
  const message = await stderr;
  const facts = `${written} of ${count} MiB read, code ${code}, at most ${(peak / MIB).toFixed(0)} MiB`;
  const holds = code === 2 && await stdout === "" && /^Error: [^\n]*longer than[^\n]*\n$/.test(message);
  return result(facts, holds && peak <= STDIN_PEAK_BYTES, message);
}

const RUNS: Readonly<Record<string, [count: number, run: (count: number) => Promise<SoakResult>]>> = {
  requests: [10_000, soakRequests],
  jsonl: [10_000, soakJsonl],
  tokens: [300_000, soakTokens],
  stdin: [2048, soakStdin],
};

async function main(): Promise<number> {
  const flags = parseArgs(Deno.args, { string: ["count"] });
  const names = flags._.length > 0 ? flags._.map(String) : Object.keys(RUNS);
  const unknown = names.find((name) => !Object.hasOwn(RUNS, name));
  if (unknown !== undefined) {
    print(`soak: unknown run "${unknown}", expected ${Object.keys(RUNS).join(", ")}`);
    return 2;
  }
  let code = 0;
  for (const name of names) {
    const [count, run] = RUNS[name]!;
    const started = performance.now();
    const { facts, problem } = await run(Number(flags["count"] ?? count));
    print(`${name.padEnd(10)}${facts}, ${((performance.now() - started) / 1000).toFixed(0)} s`);
    if (problem === undefined) continue;
    print(`${name.padEnd(10)}FAILED: ${problem}`);
    code = 1;
  }
  return code;
}

if (import.meta.main) Deno.exit(await main());
