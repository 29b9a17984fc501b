import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import type { Row } from "../../bench/row.ts";
import { runBench, withFolder } from "./bench_process.ts";

const TINY = [
  "-l",
  "400",
  "--documents",
  "1",
  "--facts",
  "1",
  "--prose",
  "16",
  "--budget",
  "64,256",
  "--scorer",
  "unique",
];

async function rowsOf(...args: string[]): Promise<Row[]> {
  const { stdout } = await runBench("quality", ...TINY, ...args, "-o", "json");
  return JSON.parse(stdout).rows;
}

Deno.test("bench quality has dense, the oracle and every scorer at every budget, for every task", async () => {
  const rows = await rowsOf();
  assertEquals(rows.map(({ task, arm, budget_tokens: budget }) => `${task} ${arm} ${budget ?? ""}`.trim()), [
    ...["needle", "pairs", "prose"].flatMap((task) => [
      `${task} dense`,
      ...["oracle 64", "oracle 256", "sparse 64", "sparse 256"].map((arm) => `${task} ${arm}`),
    ]),
  ]);
});

Deno.test("bench quality compares page sizes", async () => {
  const rows = await rowsOf("--task", "prose", "--page-size", "8,32", "--budget", "64");
  assertEquals(rows.map(({ arm, page_size: page }) => `${arm} ${page}`), [
    ...["dense 8", "oracle 8", "sparse 8"],
    ...["dense 32", "oracle 32", "sparse 32"],
  ]);
});

Deno.test("bench quality keeps most mass through the oracle, and more with a larger budget", async () => {
  const rows = await rowsOf("--task", "prose");
  const mass = (arm: string, budget: number): number =>
    rows.find((row) => row.arm === arm && row.budget_tokens === budget)?.mass_kept ?? NaN;
  assert(mass("oracle", 64) >= mass("sparse", 64) && mass("oracle", 256) > mass("oracle", 64));
});

Deno.test("bench quality is closer to dense with a larger budget of the oracle", async () => {
  const [, small, large] = await rowsOf("--task", "prose");
  assert((large?.kl ?? NaN) < (small?.kl ?? NaN));
});

Deno.test("bench quality asks the same questions again with the same seed", async () => {
  const answers = async (): Promise<unknown> =>
    (await rowsOf("--task", "needle,pairs", "-s", "5")).map(({ right, by_depth: parts }) => [right, parts]);
  assertEquals(await answers(), await answers());
});

Deno.test("bench quality asks tasks after RULER and the questions of a file, scored against dense", async () => {
  await withFolder(async (folder) => {
    const file = join(folder, "mine.jsonl");
    const context = "The ships lay quietly in the harbour. ".repeat(60);
    Deno.writeTextFileSync(file, JSON.stringify({ context, question: "Where?", answers: ["harbour"] }));
    const rows = await rowsOf("--task", `multikey,${file}`);
    assertEquals(rows.map(({ task, arm, trials }) => `${task} ${arm} ${trials}`), [
      ...["multikey", "mine"].flatMap((task) =>
        ["dense", "oracle", "oracle", "sparse", "sparse"].map((arm) => `${task} ${arm} 1`)
      ),
    ]);
    assert(rows.every(({ arm, score_change: change }) => (arm === "dense") === (change === undefined)));
  });
});

Deno.test("bench quality warns of lines of a file that it cannot measure", async () => {
  await withFolder(async (folder) => {
    const file = join(folder, "mine.jsonl");
    const line = (repeats: number): string =>
      JSON.stringify({ context: "The ships lay quietly. ".repeat(repeats), question: "What?", answers: ["ships"] });
    Deno.writeTextFileSync(file, `${line(1)}\n${line(90)}\n`);
    const { code, stderr } = await runBench("quality", ...TINY, "--task", file);
    assertEquals(code, 0);
    assertMatch(stderr, /^Warning: .*1 of 2 lines/);
  });
});

Deno.test("bench quality writes a table for each task and draws quality against budget", async () => {
  await withFolder(async (folder) => {
    const file = join(folder, "out.svg");
    const { stdout } = await runBench("quality", ...TINY, "--plot", file, "-o", "md");
    assertEquals(stdout.match(/\| task /g)?.length, 3);
    assertStringIncludes(Deno.readTextFileSync(file), ">budget, tokens (log scale)<");
  });
});

const refused: [args: string[], code: number, message: string][] = [
  [["--task", "poem"], 2, "needle, pairs, prose"],
  [["--task", "absent.jsonl"], 2, "absent.jsonl"],
  [["--task", "single", "--chat"], 2, "no chat template"],
  [["--task", "single", "-l", "260", "--budget", "256"], 2, "does not exceed --budget 256"],
  [["-l", "400", "--budget", "512"], 2, "nothing would be selected"],
  [["-l", "64k"], 4, "the longest --length is"],
  [["--text", "/absent.txt"], 2, '--text "/absent.txt" cannot be read'],
  [["-l", "16k"], 2, "name a longer one with --text"],
];
for (const [args, wanted, message] of refused) {
  Deno.test(`bench quality ${args.join(" ")} ends with ${wanted} before it measures`, async () => {
    const { code, stdout, stderr } = await runBench("quality", ...args);
    assertEquals([code, stdout], [wanted, ""]);
    assertMatch(stderr, /^Error: .*\n$/);
    assertStringIncludes(stderr, message);
  });
}
