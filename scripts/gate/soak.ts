/**
 * Long runs on a tiny model that check for leaks of pages, handles and memory.
 *
 *     deno run -A scripts/gate/soak.ts [requests|prompts|jsonl|tokens|stdin] [--count N]
 *
 * requests  10,000 short requests in batches; all pages are free and no handle is open afterwards
 * prompts   10,000 requests that begin alike, with prompts on disk, of which some are cut short; every page is free or remembered afterwards,
 *           and the same request always gets the same answer
 * jsonl     10,000 lines through `generate --jsonl`; as many lines come out, in order
 * tokens    300,000 generated tokens; the process does not grow
 * stdin     2 GiB into `generate`; it refuses them and reads no more than its limit
 */
import { getHeapSpaceStatistics } from "node:v8";
import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { Engine } from "../../engine/engine.ts";
import type { KvPool } from "../../engine/pages/kv_pool.ts";
import type { Sequence } from "../../engine/pages/sequence.ts";
import { Request } from "../../engine/request.ts";
import { Random } from "../../engine/sample/random.ts";
import type { Session } from "../../engine/session.ts";
import type { FinishReason } from "../../engine/types.ts";
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

/** Tokens of a document that requests begin with: three chunks of a saved prompt. */
const DOCUMENT_TOKENS = 192;
/** About 20 chunks, so that most are removed before they are read again. */
const SAVED_BYTES = 1_200_000;

/** One of 400 different requests: the start of one of 5 documents, a question, and something that ends the answer. */
function requestAbout(number: number, engine: Engine, index: number, sequence?: Sequence): Request {
  const ids = promptAbout(number);
  const stop = number % 4 === 0 ? ["a", "e", "er"] : [];
  const options = { maxTokens: 1 + number % 12, temperature: number % 3, seed: number, stop };
  const maxContext = number % 7 === 0 ? ids.length + 2 : engine.config.maxContext;
  const limits = { eosTokenIds: engine.config.eosTokenIds, maxContext };
  return new Request(index, ids.slice(sequence?.length ?? 0), options, engine.tokenizer.stream(), limits, sequence);
}

function promptAbout(number: number): number[] {
  const document = Array.from({ length: (number * 37) % DOCUMENT_TOKENS }, (_, place) => 3 + number % 5 + place % 600);
  return [...document, ...Array.from({ length: 20 + number % 30 }, (_, place) => 3 + (number * 31 + place * 7) % 600)];
}

/** Requests as a program sends them: some later than others. */
async function* arriving(requests: readonly Request[]): AsyncGenerator<Request> {
  for (const [index, request] of requests.entries()) {
    if (index % 4 === 3) await new Promise((resolve) => setTimeout(resolve, 0));
    yield request;
  }
}

/** What is wrong with the pages of a pool that no sequence uses any more. All of them are allocated once and given back. */
function pageProblem({ allocator, prefixes }: KvPool): string | undefined {
  const { numPages, groupPages, numUsed } = allocator;
  if (numUsed > 0) return `${numUsed} of ${numPages} pages are in use by nobody`;
  const remembered = prefixes.blocks().map(({ page }) => page);
  const busy = remembered.filter((page) => !allocator.isIdle(page)).length;
  if (busy > 0 || new Set(remembered).size < remembered.length) {
    return `${busy} remembered pages are not idle, or twice there`;
  }
  const all = Array.from({ length: numPages / groupPages }, () => allocator.allocate());
  if (new Set(all).size < all.length || prefixes.size > 0) return "a page was handed out twice, or is still remembered";
  allocator.free(all);
  return undefined;
}

/** What a run of requests that begin alike has shown so far. */
class PromptSoak {
  readonly #random = new Random(5);
  /** By request. */
  readonly #answers = new Map<number, readonly number[]>();
  readonly ends: Record<string, number> = {};
  readonly problems = new Set<string>();
  started = 0;
  reused = 0;
  loaded = 0;
  saved = 0;

  constructor(readonly engine: Engine) {}

  note(problem: string | undefined): void {
    if (problem !== undefined) this.problems.add(problem);
  }

  #below(limit: number): number {
    return Math.floor(this.#random.nextFloat() * limit);
  }

  /** Up to 16 requests at once, or one after the other. The first may continue a sequence that is cut anywhere in shared pages. */
  async runBatch(session: Session, most: number): Promise<void> {
    const numbers = Array.from({ length: Math.min(1 + this.#below(16), most) }, () => this.#below(400));
    using cut = new DisposableStack();
    const requests = numbers.map((number, index) => {
      if (index > 0 || this.#below(3) > 0) return requestAbout(number, this.engine, index);
      const sequence = session.pool.openSequence(promptAbout(number));
      session.truncate(sequence, this.#below(sequence.length + 1));
      cut.defer(() => sequence.release());
      return requestAbout(number, this.engine, index, sequence);
    });
    await this.#consume(session, this.#below(2) === 0 ? requests : arriving(requests), (index, finish) => {
      const [number, request] = [numbers[index], requests[index]];
      if (number !== undefined && request) this.#finished(number, request, finish);
    });
    this.started += requests.length;
    const { reusedTokens = 0, promptCache } = session.stats ?? {};
    this.reused += reusedTokens;
    this.loaded += promptCache?.loadedTokens ?? 0;
    this.saved += promptCache?.savedTokens ?? 0;
  }

  /** Now and then aborts the run, or leaves it. */
  async #consume(
    session: Session,
    source: readonly Request[] | AsyncIterable<Request>,
    onFinish: (index: number, finish: FinishReason) => void,
  ): Promise<void> {
    const abort = new AbortController();
    const abortAt = this.#below(4) === 0 ? this.#below(30) : Infinity;
    const leaveAt = this.#below(4) === 0 ? this.#below(30) : Infinity;
    let pieces = 0;
    for await (const { index, finish } of session.generate(source, session.policy, { signal: abort.signal })) {
      if (finish) onFinish(index, finish);
      if (pieces === abortAt) abort.abort();
      if (pieces++ === leaveAt) break;
    }
  }

  #finished(number: number, { history, promptIds }: Request, finish: FinishReason): void {
    this.ends[finish] = (this.ends[finish] ?? 0) + 1;
    if (finish === "kv_exhausted" || finish === "numeric") this.note(`request ${number} ended as ${finish}`);
    if (finish === "aborted") return;
    const answer = history.slice(promptIds.length);
    const known = this.#answers.get(number);
    if (!known) this.#answers.set(number, answer);
    else if (known.join() !== answer.join()) this.note(`request ${number} had another answer`);
  }
}

/**
 * Runs requests that share pages in all ways: in memory and through the disk, in batches and as they arrive, cut inside shared pages before
 * they start, and ended by their limits, stop strings, a signal, or a consumer that leaves.
 */
export async function soakPrompts(count: number): Promise<SoakResult> {
  const folder = await Deno.makeTempDir();
  try {
    const warnings: string[] = [];
    const promptCache = { folder, limitBytes: SAVED_BYTES, onWarning: (text: string): unknown => warnings.push(text) };
    await using engine = await Engine.load(MODEL, { device: "cpu", threads: 2, promptCache });
    const soak = new PromptSoak(engine);
    const policy = engine.policy({ mode: "on", budgetTokens: 24 });
    let caches = 0;
    for (; soak.started < count; caches++) {
      using session = engine.openSession(policy, { totalTokens: 900, longestTokens: 280, maxSequences: 6 });
      for (let batch = 0; batch < 50 && soak.started < count; batch++) {
        await soak.runBatch(session, count - soak.started);
        if (session.pool.allocator.numUsed > 0) soak.note("pages are in use after a batch");
      }
      soak.note(pageProblem(session.pool));
    }
    soak.note(warnings[0]);
    const ends = Object.entries(soak.ends).map(([finish, number]) => `${number} ${finish}`).join(", ");
    const tokens = `${soak.reused} tokens reused, ${soak.loaded} loaded, ${soak.saved} saved, ${caches} caches`;
    return result(
      `${soak.started} requests (${ends}), ${tokens}`,
      soak.problems.size === 0,
      [...soak.problems].join("; "),
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
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
  prompts: [10_000, soakPrompts],
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
