import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { Row } from "../../bench/row.ts";
import { fixtureFolder } from "../support/fixture_model.ts";
import { runBench, startBenchUntil, TINY_GENERATE } from "./bench_process.ts";

Deno.test("bench generate measures a shape with random weights, and says so", async () => {
  const { code, stdout, stderr } = await runBench("generate", ...TINY_GENERATE, "-o", "json");
  const { rows, provenance } = JSON.parse(stdout) as { rows: Row[]; provenance: { notes: string[] } };
  assertEquals([code, stderr], [0, ""]);
  assertEquals(rows.map(({ arm, depth_tokens: depth }) => `${arm} ${depth}`), [
    ...["dense 0", "dense 0", "dense 200", "dense 200", "sparse 200"],
  ]);
  assertStringIncludes(provenance.notes.join(" "), "Random weights");
});

Deno.test("bench generate measures a model folder and gives its fingerprint", async () => {
  const folder = fixtureFolder("qwen3-qknorm-f32");
  const { stdout } = await runBench("generate", "-m", folder, ...TINY_GENERATE.slice(2), "-o", "json");
  const { rows, provenance } = JSON.parse(stdout) as { rows: Row[]; provenance: { model_sha256: string } };
  assertMatch(provenance.model_sha256, /^[0-9a-f]{64}$/);
  assert(rows.every(({ model }) => model === "qwen3-qknorm-f32"));
});

Deno.test("bench generate names its tests as llama-bench does", async () => {
  const { stdout } = await runBench("generate", ...TINY_GENERATE, "-o", "md");
  for (const name of ["| pp8 ", "| tg4 ", "| pp8 @ d200 ", "| tg4 @ d200 "]) assertStringIncludes(stdout, name);
});

Deno.test("bench generate streams CSV with a line a row", async () => {
  const { stdout } = await runBench("generate", ...TINY_GENERATE, "-o", "csv");
  assertEquals(stdout.trim().split("\n").length, 1 + 5);
});

Deno.test("bench generate dies by SIGINT after it printed the rows that are there", async () => {
  const args = ["--shape", "default", "-p", "0", "-n", "4,100000", "-d", "64", "-r", "1", "--verbose"];
  const { child, stderr } = await startBenchUntil("Measuring 2 of 2: tg100000", "generate", ...args);
  child.kill("SIGINT");
  const [{ signal }, stdout] = await Promise.all([child.status, new Response(child.stdout).text()]);
  await stderr.cancel();
  assertEquals(signal, "SIGINT");
  assertMatch(stdout, /\ntg4 @ d64 .*dense/);
});

const refused: [args: string[], code: number, message: string][] = [
  [["-d", "64k"], 4, "over by"],
  [["--shape", "qwen"], 2, "qwen3-8b, qwen3-0.6b, llama-3.2-1b, llama-3.3-70b, default"],
  [["--shape", "default", "-m", "x"], 2, "exclude each other"],
  [["--batch", "257"], 2, "at most 256"],
  [["-p", "0", "-n", "0"], 2, "nothing to measure"],
  [["--shape", "default", "-d", "16m", "--batch", "64"], 6, "weights 16 MiB"],
  [["-m", "/absent"], 3, '"/absent"'],
];
for (const [args, wanted, message] of refused) {
  Deno.test(`bench generate ${args.join(" ")} ends with ${wanted} before it measures`, async () => {
    const { code, stdout, stderr } = await runBench("generate", ...args);
    assertEquals([code, stdout], [wanted, ""]);
    assertMatch(stderr, /^Error: .*\n$/);
    assertStringIncludes(stderr, message);
  });
}
