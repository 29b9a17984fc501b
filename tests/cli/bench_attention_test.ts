import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import type { Row } from "../../bench/row.ts";
import { runBench, TINY_ATTENTION, withFolder } from "./bench_process.ts";
import { runFake } from "./fake_world.ts";

const peer = {
  ...{ subject: "attention", arm: "sdpa", batch: 1, context_tokens: 300, query_heads: 4, kv_heads: 2, head_dim: 32 },
  ...{ median_us: 50 },
};

Deno.test("bench attention prints a row for every arm as JSON, with where and how it was made", async () => {
  const { code, stdout, stderr } = await runBench("attention", ...TINY_ATTENTION, "-o", "json");
  const { rows, provenance } = JSON.parse(stdout) as { rows: Row[]; provenance: Record<string, unknown> };
  assertEquals([code, stderr], [0, ""]);
  assertEquals(rows.map(({ arm }) => arm), ["dense", "append", "score", "sparse", "select", "attend"]);
  assertEquals([provenance["threads"], provenance["backend"]], [2, "cpu"]);
});

Deno.test("bench attention tells pages read by the native counters, recall and mass of sparse rows", async () => {
  const { stdout } = await runBench("attention", ...TINY_ATTENTION, "-o", "json");
  const sparse = (JSON.parse(stdout).rows as Row[]).find(({ arm }) => arm === "sparse");
  assertEquals([sparse?.pages_read, sparse?.pages_dense], [8, 38]);
  assert((sparse?.recall ?? -1) >= 0 && (sparse?.recall ?? 2) <= 1);
  assert((sparse?.mass_kept ?? 2) <= (sparse?.oracle_mass ?? 0) + 1e-9);
});

Deno.test("bench attention writes a table with provenance above", async () => {
  const { stdout } = await runBench("attention", ...TINY_ATTENTION);
  assertMatch(stdout, /^pagesift \d+\.\d+\.\d+, commit \S+, .*2 threads.*\n/);
  assertMatch(stdout, /\ncontext 300, batch 1, heads 4\/2 of 32, .*[\s\S]*\narm +scorer +budget/);
});

Deno.test("bench attention puts peers beside its own rows and warns of those that match nothing", async () => {
  await withFolder(async (folder) => {
    const file = join(folder, "peers.jsonl");
    Deno.writeTextFileSync(file, [peer, { ...peer, batch: 9 }].map((row) => JSON.stringify(row)).join("\n"));
    const { stdout, stderr } = await runBench("attention", ...TINY_ATTENTION, "-o", "jsonl", "--peers", file);
    assertEquals(stdout.trim().split("\n").map((line) => JSON.parse(line).arm).at(-1), "sdpa");
    assertMatch(stderr, /^Warning: 1 peer row .*peers\.jsonl:2\n$/);
  });
});

Deno.test("bench attention draws a plot", async () => {
  await withFolder(async (folder) => {
    const file = join(folder, "out.svg");
    assertEquals((await runBench("attention", ...TINY_ATTENTION, "--plot", file, "-q")).code, 0);
    assertMatch(Deno.readTextFileSync(file), /^<svg [\s\S]*sparse unique 64[\s\S]*<\/svg>\n$/);
  });
});

Deno.test("bench attention leaves the file of --plot and its folder as they are when it refuses to run", async () => {
  await withFolder(async (folder) => {
    const file = join(folder, "out.svg");
    Deno.writeTextFileSync(file, "mine");
    const before = Deno.statSync(file);
    for (const plot of [file, join(folder, "new.svg")]) {
      assertEquals((await runBench("attention", "--budget", "4", "--plot", plot)).code, 2);
    }
    const after = Deno.statSync(file);
    assertEquals([Deno.readTextFileSync(file), after.mtime, after.ino], ["mine", before.mtime, before.ino]);
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["out.svg"]);
  });
});

Deno.test("bench attention says in one line that a device cannot take the plot", async () => {
  const { code, stdout, stderr } = await runBench("attention", ...TINY_ATTENTION, "--plot", "/dev/full");
  assertEquals([code, stdout], [2, ""]);
  assertMatch(stderr, /^Error: --plot "\/dev\/full" cannot be written: [^\n]*\n$/);
});

const refused: [args: string[], code: number, message: string][] = [
  [["-c", ""], 2, "--context is empty"],
  [["--budget", "4"], 2, "the smallest is 8"],
  [["--budget", "500"], 2, "the nearest are 496 and 504"],
  [["--scorer", "best"], 2, "unique, diag, quest, mean"],
  [["--heads", "33/8"], 2, "32/8 and 40/8"],
  [["--batch", "4000", "-c", "1m"], 6, "would fit"],
  [["--peers", "/absent/peers.jsonl"], 2, '--peers "/absent/peers.jsonl" cannot be read'],
  [["--plot", "/absent/out.svg"], 2, '--plot "/absent/out.svg" cannot be written'],
  [["more"], 2, 'found "more"'],
];
for (const [args, wanted, message] of refused) {
  Deno.test(`bench attention ${args.join(" ")} ends with ${wanted} before it measures`, async () => {
    const { code, stdout, stderr } = await runBench("attention", ...args);
    assertEquals([code, stdout], [wanted, ""]);
    assertMatch(stderr, /^Error: .*\n$/);
    assertStringIncludes(stderr, message);
  });
}

Deno.test("bench attention leaves no plot behind when it is refused", async () => {
  await withFolder(async (folder) => {
    const file = join(folder, "out.svg");
    assertEquals((await runBench("attention", "--plot", file, "-c", "")).code, 2);
    assertEquals([...Deno.readDirSync(folder)], []);
  });
});

Deno.test("bench --help lists its subjects", async () => {
  const { stdout, ending } = await runFake(["bench", "--help"]);
  assertMatch(stdout, /^Usage: pagesift bench SUBJECT .*[\s\S]*\nSubjects:\n +attention +One layer/);
  assertEquals(ending, { code: 0 });
});

Deno.test("bench without a subject ends with 2 and names them", async () => {
  const { stderr, ending } = await runFake(["bench"]);
  assertMatch(stderr, /^Error: No subject given; subjects: attention, generate, quality/);
  assertEquals(ending, { code: 2 });
});

Deno.test("bench names the subject that was probably meant", async () => {
  const { stderr } = await runFake(["bench", "atention"]);
  assertEquals(stderr, 'Error: Unknown subject "atention", did you mean "attention"?\n');
});

Deno.test("bench attention --help keeps lines within 120 columns", async () => {
  const { stdout } = await runFake(["bench", "attention", "--help"]);
  assertEquals(stdout.split("\n").filter((line) => line.length > 120), []);
});
