/**
 * Measures what a second question about a long document costs: in the same session, and in a new one with the document on disk.
 *
 *     deno run -A scripts/studies/prompt_reuse.ts [--device cuda] [--shape qwen3-8b] [--tokens 131072] [--disk-tokens 32768]
 *         [--new 64] [--repetitions 5] [--folder DIR]
 *
 * Weights are random. `beyond` is the time to the first token of a question of `--new` tokens, less that of prefilling as many tokens at the
 * same depth without looking for known pages. For the disk, files are written, synced and dropped from the page cache before they are
 * read; `dd` reads one file of the same size for comparison. Where the system does not drop them, "cold" is as fast as "warm".
 */
import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { type BenchModel, openModel, planModel } from "../../bench/bench_model.ts";
import type { DeviceChoice } from "../../engine/devices.ts";
import { resolvePolicy } from "../../engine/pages/page_policy.ts";
import { Request } from "../../engine/request.ts";
import { SavedPrompts } from "../../engine/saved_prompts.ts";
import { Session } from "../../engine/session.ts";
import { TextStream } from "../../engine/text/text_stream.ts";
import { print } from "../output.ts";
import { commit, median } from "./measure.ts";

const SILENT = { decode: (): string => "", isSilent: (): boolean => true };
/** Bytes of a block that `dd` reads. */
const BLOCK = "16M";

interface Study {
  model: BenchModel;
  /** Tokens of a question. */
  newTokens: number;
  repetitions: number;
}

/** Ids that differ from one `seed` to the next. */
function idsOf(count: number, seed: number, vocabSize: number): number[] {
  return Array.from({ length: count }, (_, index) => 1 + (index * 7919 + seed * 104_729) % (vocabSize - 1));
}

function openSession({ model: { loaded }, newTokens }: Study, tokens: number): Session {
  const policy = resolvePolicy({ mode: "on" }, loaded.config.slidingWindows, loaded.scoresGroups);
  const longestTokens = tokens + newTokens + 64;
  // Room for the questions, each of which leaves pages of its own.
  return Session.open(loaded, policy, { totalTokens: longestTokens + 1024, longestTokens, maxSequences: 1 });
}

/** Seconds until the first token of a prompt, and the token. */
async function firstToken(session: Session, promptIds: readonly number[]): Promise<{ seconds: number; id: number }> {
  const started = performance.now();
  const limits = { eosTokenIds: [], maxContext: session.loaded.config.maxContext };
  const request = new Request(0, promptIds, { maxTokens: 1 }, new TextStream(SILENT), limits);
  let seconds = NaN;
  let id = -1;
  for await (const piece of session.generate([request])) {
    if (Number.isNaN(seconds)) ({ seconds, id } = { seconds: (performance.now() - started) / 1000, id: piece.id });
  }
  return { seconds, id };
}

/** Seconds of prefilling `question` behind pages that a sequence already has, and of choosing the next token. */
async function ownCost(session: Session, document: readonly number[], question: readonly number[]): Promise<number> {
  const { model } = session.loaded;
  const sequence = session.pool.openSequence([...document, ...question]);
  if (sequence.length !== document.length) throw new Error(`${sequence.length} of ${document.length} tokens are known`);
  const started = performance.now();
  await session.prefill(sequence, question, {
    onChunk: (hidden) => {
      const rows = hidden.shape[0] ?? 1;
      model.best(model.logits(hidden.rows(rows - 1, 1))).readInts();
    },
  });
  const seconds = (performance.now() - started) / 1000;
  sequence.release();
  return seconds;
}

const ms = (seconds: number): string => `${(1000 * seconds).toFixed(1)} ms`;
const list = (all: readonly number[]): string => all.map((each) => (1000 * each).toFixed(1)).join(", ");

async function studyMemory(study: Study, tokens: number): Promise<void> {
  const { vocabSize } = study.model.loaded.config;
  using session = openSession(study, tokens);
  const document = idsOf(tokens, 0, vocabSize);
  const question = (round: number): number[] => idsOf(study.newTokens, 1 + round, vocabSize);
  const first = await firstToken(session, [...document, ...question(-1)]);
  print(`${tokens} tokens, first question: ${ms(first.seconds)}`);
  const [second, own]: [number[], number[]] = [[], []];
  for (let round = 0; round < study.repetitions; round++) {
    second.push((await firstToken(session, [...document, ...question(2 * round)])).seconds);
    own.push(await ownCost(session, document, question(2 * round + 1)));
  }
  print(`second question (ms): ${list(second)}; ${study.newTokens} tokens at this depth alone: ${list(own)}`);
  print(`beyond: ${ms(median(second) - median(own))} of ${ms(median(second))}`);
}

async function command(name: string, ...args: string[]): Promise<void> {
  const { code, stderr } = await new Deno.Command(name, { args, stderr: "piped", stdout: "null" }).output();
  if (code !== 0) throw new Error(`${name} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}

function filesIn(folder: string): string[] {
  return Array.from(Deno.readDirSync(folder)).flatMap(({ name, isDirectory }) =>
    isDirectory ? filesIn(join(folder, name)) : [join(folder, name)]
  );
}

/** Asks the system to drop files from its page cache. */
async function dropFromCache(files: readonly string[]): Promise<void> {
  await command("sync");
  const drop = 'for file; do dd if="$file" iflag=nocache count=0 status=none; done';
  await command("sh", "-c", drop, "sh", ...files);
}

/** GB/s of reading a file from its beginning to its end, the faster of cached and direct reads. */
async function readSpeed(file: string, cold: boolean): Promise<number> {
  const { size } = await Deno.stat(file);
  const speeds: number[] = [];
  for (const flags of cold ? [[], ["iflag=direct"]] : [[]]) {
    if (cold) await dropFromCache([file]);
    const started = performance.now();
    const read = command("dd", `if=${file}`, "of=/dev/null", `bs=${BLOCK}`, "status=none", ...flags);
    if (await read.then(() => true, () => false)) speeds.push(size / (performance.now() - started) / 1e6);
  }
  return Math.max(...speeds);
}

/** A model folder that stands for random weights. */
async function standIn(folder: string): Promise<string> {
  const model = join(folder, "model");
  await Deno.mkdir(model, { recursive: true });
  await Deno.writeTextFile(join(model, "config.json"), "{}");
  return model;
}

async function studyDisk(study: Study, tokens: number, folder: string): Promise<void> {
  const { loaded } = study.model;
  const { vocabSize } = loaded.config;
  const document = idsOf(tokens, 0, vocabSize);
  const cache = join(folder, "prompts");
  const saved = await SavedPrompts.open(
    { folder: cache, limitBytes: 1e12, onWarning: print },
    await standIn(folder),
    {},
  );
  const question = idsOf(study.newTokens, 1, vocabSize);
  let expected: number;
  {
    using session = openSession(study, tokens);
    expected = (await firstToken(session, [...document, ...question])).id;
    const sequence = session.pool.openSequence([...document, ...question]);
    saved.begin();
    const started = performance.now();
    saved.save(session.pool, sequence, document);
    await saved.finish();
    const seconds = (performance.now() - started) / 1000;
    const { savedBytes } = saved.stats;
    print(
      `saved ${tokens} tokens: ${(savedBytes / 1e9).toFixed(2)} GB in ${ms(seconds)}, ${
        (savedBytes / seconds / 1e9).toFixed(2)
      } GB/s`,
    );
    sequence.release();
  }
  const files = filesIn(cache);
  const whole = join(folder, "whole");
  await command("sh", "-c", 'out=$1; shift; cat "$@" > "$out"', "sh", whole, ...files);
  loaded.savedPrompts = saved;
  try {
    for (const cold of [true, true, true, false, false]) {
      const speed = await readSpeed(whole, cold);
      if (cold) await dropFromCache(files);
      using session = openSession(study, tokens);
      const { seconds, id } = await firstToken(session, [...document, ...question]);
      const { loadedBytes, loadedTokens, loadSeconds } = saved.stats;
      const rate = loadedBytes / loadSeconds / 1e9;
      print(
        `${cold ? "cold" : "warm"}: ${loadedTokens} tokens loaded in ${ms(loadSeconds)}, ${
          rate.toFixed(2)
        } GB/s; dd reads ${speed.toFixed(2)} GB/s: ${(100 * rate / speed).toFixed(0)} %; first token after ${
          ms(seconds)
        }, ${id === expected ? "the same" : "another"} token`,
      );
    }
  } finally {
    loaded.savedPrompts = undefined;
  }
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, {
    string: ["device", "shape", "tokens", "disk-tokens", "new", "repetitions", "folder"],
  });
  const tokens = Number(flags.tokens ?? 131_072);
  const diskTokens = Number(flags["disk-tokens"] ?? 32_768);
  const newTokens = Number(flags.new ?? 64);
  const shape = String(flags.shape ?? "qwen3-8b");
  const choice = { shape, name: shape, device: (flags.device ?? "cuda") as DeviceChoice, threads: undefined };
  const planned = await planModel(choice, Math.max(tokens, diskTokens) + newTokens + 1024);
  await using model = await openModel(choice, planned, 1);
  print(`commit ${await commit()}; ${shape} on ${model.loaded.facts.device}`);
  const study = { model, newTokens, repetitions: Number(flags.repetitions ?? 5) };
  if (tokens > 0) await studyMemory(study, tokens);
  if (diskTokens === 0) return;
  const folder = await Deno.makeTempDir({ ...flags.folder !== undefined && { dir: String(flags.folder) } });
  try {
    await studyDisk(study, diskTokens, folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

if (import.meta.main) await main();
