/** Prompts on disk: what is loaded is what was computed, and a file that cannot be trusted is never used. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import type { Engine, EngineOptions } from "../../engine/engine.ts";
import { Request } from "../../engine/request.ts";
import type { EngineStats, SparseOptions } from "../../engine/types.ts";
import {
  collect,
  fixtureFolder,
  loadFixture,
  loadFolder,
  ModelCopy,
  type Outcome,
  promptIds,
} from "../support/fixture_model.ts";
import { ROOT } from "../../scripts/release/native_library.ts";
import { DEVICE_KIND } from "../support/device.ts";
import { runDeno } from "../support/process.ts";
import { TempFolder } from "../support/temp_folder.ts";

const MODEL = "llama-f32";
const DOCUMENT = promptIds(MODEL, 500);
const SMALL: SparseOptions = { mode: "on", budgetTokens: 24 };

function about(question: number): number[] {
  return [...DOCUMENT, ...Array.from({ length: 20 }, (_, index) => 3 + (question * 31 + index * 7) % 200)];
}

interface Run extends Outcome {
  stats: EngineStats;
  warnings: string[];
}

/** One prompt in an engine of its own, with a cache in `folder`, or without one. */
async function run(
  folder: string | undefined,
  prompt: readonly number[],
  options: EngineOptions & { model?: string; sparse?: SparseOptions; limitBytes?: number } = {},
): Promise<Run> {
  const { model = fixtureFolder(MODEL), sparse = SMALL, limitBytes = 1e9, ...rest } = options;
  const warnings: string[] = [];
  const onWarning = (text: string): void => void warnings.push(text);
  const promptCache = folder === undefined ? {} : { promptCache: { folder, limitBytes, onWarning } };
  await using engine = await loadFolder(model, { ...rest, ...promptCache });
  const outcome = await collect(engine.generate(prompt, { maxTokens: 8, sparse }));
  return { ...outcome, stats: engine.stats, warnings };
}

function chunksOf(folder: string): string[] {
  return Array.from(Deno.readDirSync(folder), ({ name }) => name).filter((name) => name.endsWith(".safetensors"))
    .sort();
}

function answer({ ids, text, finish }: Outcome): Outcome {
  return { ids, text, finish };
}

for (const [label, sparse] of [["dense", { mode: "off" }], ["sparse", SMALL]] as const) {
  Deno.test(`A second question about a saved document loads it and gives the ${label} answer of a run without a cache`, async () => {
    using folder = new TempFolder();
    const first = await run(folder.path, about(1), { sparse });
    assertEquals(first.stats.promptCache?.savedTokens, 512);
    const second = await run(folder.path, about(2), { sparse });
    assertEquals([second.stats.promptCache?.loadedTokens, second.stats.prefillTokens], [448, 72]);
    assertEquals(answer(second), answer(await run(undefined, about(2), { sparse })));
    assertEquals([first.warnings, second.warnings], [[], []]);
  });
}

Deno.test("A longer prompt continues where a saved one ended, and shares its files", async () => {
  using folder = new TempFolder();
  await run(folder.path, DOCUMENT.slice(0, 200));
  const before = chunksOf(folder.path);
  const { stats } = await run(folder.path, about(1));
  assertEquals([before.length, stats.promptCache?.loadedTokens, stats.promptCache?.savedTokens], [3, 192, 320]);
  assertEquals(before.filter((name) => !chunksOf(folder.path).includes(name)), []);
});

Deno.test("A prompt that is in memory up to the middle of a chunk continues on disk", async () => {
  using folder = new TempFolder();
  await run(folder.path, about(1));
  const promptCache = { folder: folder.path };
  await using engine = await loadFixture(MODEL, { promptCache });
  await collect(engine.generate([...DOCUMENT.slice(0, 150), ...promptIds(MODEL, 60).slice(20)], { maxTokens: 2 }));
  const outcome = await collect(engine.generate(about(2), { maxTokens: 8, sparse: SMALL }));
  assertEquals(engine.stats.reusedTokens, 448);
  assertEquals(outcome, answer(await run(undefined, about(2))));
});

// A GPU shares groups of as many tokens as a chunk has.
const KEEPS_SHARED =
  "A chunk that is in memory up to its middle leaves the pages that are there, and others use, in their place";
Deno.test({ name: KEEPS_SHARED, ignore: DEVICE_KIND === "cuda" }, async () => {
  using folder = new TempFolder();
  await run(folder.path, about(1));
  await using engine = await loadFixture(MODEL, { promptCache: { folder: folder.path } });
  using session = engine.openSession(engine.policy(), { totalTokens: 1200, longestTokens: 600, maxSequences: 2 });
  const { pool } = session;
  const first = session.openSequence();
  await session.prefill(first, DOCUMENT.slice(0, 152), { onChunk: () => {} });
  pool.prefixes.add(DOCUMENT, first.pages, 152);
  const units = pool.unitsOf(first, 0, 152);
  const contents = (): Uint8Array => {
    const bytes = new Uint8Array(units.length * pool.unitBytes);
    pool.cache.exportPages(units, bytes);
    return bytes;
  };
  const before = contents();
  const second = pool.openSequence(about(2));
  await session.loaded.savedPrompts?.load(pool, second, about(2), () => Promise.resolve());
  assertEquals([second.length, second.pages.slice(0, 19)], [448, first.pages.slice(0, 19)]);
  assertEquals(contents(), before);
  assertEquals(pool.allocator.numUsed, first.pages.length + second.pages.length - 19);
});

/** The pages of a prompt's first 448 tokens, byte for byte, after a run over a sequence of the caller's. */
async function pagesOf(engine: Engine, promptIds: readonly number[]): Promise<Uint8Array> {
  using session = engine.openSession(engine.policy(), { totalTokens: 600, longestTokens: 600, maxSequences: 1 });
  const sequence = session.openSequence();
  const limits = { eosTokenIds: [], maxContext: 600 };
  const request = new Request(0, promptIds, { maxTokens: 1 }, engine.tokenizer.stream(), limits, sequence);
  for await (const _piece of session.generate([request]));
  const units = session.pool.unitsOf(sequence, 0, 448);
  const bytes = new Uint8Array(units.length * session.pool.unitBytes);
  session.pool.cache.exportPages(units, bytes);
  return bytes;
}

for (const kvType of ["auto", "q8"] as const) {
  Deno.test(`Keys, values and statistics are loaded as they were computed, bit for bit (${kvType})`, async () => {
    using folder = new TempFolder();
    const promptCache = { folder: folder.path };
    await run(folder.path, about(1), { kvType });
    await using saved = await loadFixture(MODEL, { promptCache, kvType });
    await using plain = await loadFixture(MODEL, { kvType });
    assertEquals(await pagesOf(saved, about(2)), await pagesOf(plain, about(2)));
  });
}

/** Changes a file of the second chunk in place. */
function damage(folder: string, change: (bytes: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>): void {
  for (const name of chunksOf(folder)) {
    const path = join(folder, name);
    const bytes = Deno.readFileSync(path);
    if (new TextDecoder().decode(bytes.subarray(0, 600)).includes('"tokens":"128"')) {
      Deno.writeFileSync(path, change(bytes));
    }
  }
}

const DAMAGES: [string, (bytes: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>, string][] = [
  ["of which one bit flipped", (bytes) => bytes.with(bytes.length - 100, bytes.at(-100)! ^ 1), "checksum"],
  ["that was cut short", (bytes) => bytes.slice(0, -1), "truncated"],
  ["that is empty", () => new Uint8Array(), "not a saved prompt"],
  ["that is something else", () => new TextEncoder().encode("hello".repeat(100)), "not a saved prompt"],
];

for (const [what, change, keyword] of DAMAGES) {
  Deno.test(`A chunk ${what} is skipped with one warning, computed again, and replaced`, async () => {
    using folder = new TempFolder();
    await run(folder.path, about(1));
    damage(folder.path, change);
    const second = await run(folder.path, about(2));
    assertEquals([second.warnings.length, second.stats.promptCache?.loadedTokens], [1, 64]);
    assertStringIncludes(second.warnings[0]!, keyword);
    assertEquals(answer(second), answer(await run(undefined, about(2))));
    const third = await run(folder.path, about(3));
    assertEquals([third.warnings, third.stats.promptCache?.loadedTokens], [[], 448]);
  });
}

Deno.test("A chunk of another prompt under a wrong name is skipped", async () => {
  using folder = new TempFolder();
  await run(folder.path, about(1));
  const names = chunksOf(folder.path);
  Deno.copyFileSync(join(folder.path, names[0]!), join(folder.path, "copy"));
  for (const name of names) Deno.copyFileSync(join(folder.path, "copy"), join(folder.path, name));
  const second = await run(folder.path, about(2));
  assertEquals(second.warnings.length, 1);
  assertEquals(answer(second), answer(await run(undefined, about(2))));
});

Deno.test("Another model of the same shape, another page size and other KV types find nothing of each other", async () => {
  using folder = new TempFolder();
  await run(folder.path, about(1));
  using other = await ModelCopy.of(MODEL).poke("model.layers.0.self_attn.k_proj.weight", 5, 0.75);
  for (
    const options of [{ model: other.folder }, { sparse: { ...SMALL, pageSize: 16, budgetTokens: 32 } }, {
      kvType: "q8" as const,
    }]
  ) {
    const { stats, warnings } = await run(folder.path, about(1), options);
    assertEquals([stats.promptCache?.loadedTokens, stats.promptCache?.savedTokens, warnings], [0, 512, []]);
  }
});

Deno.test("A change of the weights in place is noticed, although name and size stay", async () => {
  using folder = new TempFolder();
  using model = ModelCopy.of(MODEL);
  await run(folder.path, about(1), { model: model.folder });
  await model.poke("model.layers.0.self_attn.k_proj.weight", 5, 0.75);
  const { stats } = await run(folder.path, about(1), { model: model.folder });
  assertEquals(stats.promptCache?.loadedTokens, 0);
});

Deno.test("A limit removes the chunks that were used least recently, the end of a prompt first", async () => {
  using folder = new TempFolder();
  const { stats } = await run(folder.path, about(1));
  const chunkBytes = stats.promptCache!.savedBytes / 8;
  const other = about(1).map((id) => id + 1);
  await run(folder.path, other, { limitBytes: 11 * chunkBytes });
  assertEquals(chunksOf(folder.path).length, 11);
  assertEquals((await run(folder.path, other)).stats.promptCache?.loadedTokens, 448);
  assertEquals((await run(folder.path, about(1))).stats.promptCache?.loadedTokens, 3 * 64);
});

Deno.test("A batch saves the common beginning once", async () => {
  using folder = new TempFolder();
  await using engine = await loadFixture(MODEL, { promptCache: { folder: folder.path } });
  const batch = [1, 2, 3].map((question) => ({ prompt: about(question), options: { maxTokens: 3 } }));
  for await (const _piece of engine.generateBatch(batch));
  assertEquals(chunksOf(folder.path).length, 7 + 3);
});

const CLI = join(ROOT, "cli", "main.ts");

function generateArgs(folder: string, file: string, question: string): string[] {
  const model = fixtureFolder(MODEL);
  return [
    "run",
    "-A",
    CLI,
    "generate",
    "--device",
    "cpu",
    "-m",
    model,
    "-n",
    "4",
    `--prompt-cache=${folder}`,
    "-f",
    file,
    question,
  ];
}

function writeText(folder: TempFolder): string {
  const file = join(folder.path, "text.txt");
  Deno.writeTextFileSync(file, "The quick brown fox jumps over the lazy dog. ".repeat(40));
  return file;
}

Deno.test("Two processes at once save one prompt without harm", async () => {
  using folder = new TempFolder();
  const file = writeText(folder);
  const cache = join(folder.path, "cache");
  const both = await Promise.all([1, 2].map(() => runDeno(generateArgs(cache, file, "Why?"))));
  const third = await runDeno([...generateArgs(cache, file, "Why?"), "-v"]);
  for (const { code, stdout } of both) assertEquals([code, stdout], [0, third.stdout]);
  assert(!third.stderr.includes("Skipped"), third.stderr);
  assert(!third.stderr.includes("loaded 0 tokens"), third.stderr);
});

Deno.test("A process that is killed while it saves leaves only whole chunks under their names", async () => {
  using folder = new TempFolder();
  const file = writeText(folder);
  const cache = join(folder.path, "cache");
  Deno.mkdirSync(cache);
  const child = new Deno.Command(Deno.execPath(), {
    args: generateArgs(cache, file, "Why?"),
    stdout: "null",
    stderr: "null",
  }).spawn();
  const watcher = Deno.watchFs(cache);
  child.status.then(() => watcher.close(), () => {});
  for await (const _event of watcher) {
    if (chunksOf(cache).length > 0) break;
  }
  try {
    child.kill("SIGKILL");
  } catch {
    // It was faster.
  }
  await child.status;
  const second = await runDeno([...generateArgs(cache, file, "Why?"), "-v"]);
  assertEquals([second.code, second.stderr.includes("Skipped")], [0, false], second.stderr);
  const third = await runDeno([...generateArgs(cache, file, "Why?"), "-v"]);
  assertStringIncludes(third.stderr, "saved 0 tokens");
});

Deno.test("A prompt that cannot be written is answered all the same, with one warning and no file left", async () => {
  using folder = new TempFolder();
  const file = writeText(folder);
  const cache = join(folder.path, "cache");
  // The first run may also compile the program, whose files are larger.
  const { stdout: wanted } = await runDeno(generateArgs(join(folder.path, "other"), file, "Why?"));
  const args = generateArgs(cache, file, "Why?").map((word) => `'${word}'`).join(" ");
  // No file may exceed 2 KiB, which fails like a full disk does.
  const limited = `ulimit -f 2; trap '' XFSZ; exec '${Deno.execPath()}' ${args}`;
  const { code, stdout, stderr } = await new Deno.Command("bash", { args: ["-c", limited], env: { NO_COLOR: "1" } })
    .output();
  const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  assertEquals([code, text(stderr).match(/Cannot save the prompt/g)?.length], [0, 1], text(stderr));
  assertEquals(Array.from(Deno.readDirSync(cache), ({ name }) => name).filter((name) => !name.endsWith(".model")), []);
  assertEquals(text(stdout), wanted);
});
