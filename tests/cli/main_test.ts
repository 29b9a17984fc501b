import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { program } from "../../cli/program.ts";
import { type ErrorKind, PagesiftError } from "../../engine/errors.ts";
import { runFake, runGenerate, type RunResult } from "./fake_world.ts";

Deno.test("pagesift --help lists the commands", async () => {
  const { stdout, ending } = await runFake(["--help"]);
  assertMatch(stdout, /\nCommands:\n +generate +Continue/);
  assertEquals(ending, { code: 0 });
});

Deno.test("pagesift --version prints the name and the version", async () => {
  const { stdout } = await runFake(["--version"]);
  assertMatch(stdout, /^pagesift \d+\.\d+\.\d+\n$/);
});

Deno.test("generate --version prints the same as pagesift --version", async () => {
  assertEquals((await runGenerate(["--version"])).stdout, (await runFake(["--version"])).stdout);
});

Deno.test("pagesift without arguments prints about ten lines with the three examples, and ends with 0", async () => {
  const { stderr, stdout, ending } = await runFake([]);
  assertEquals([stderr, ending], ["", { code: 0 }]);
  assertEquals(stdout.trimEnd().split("\n").length, 10);
  for (const example of program.examples) assertStringIncludes(stdout, `\n  ${example}\n`);
});

Deno.test("pagesift names the command that was probably meant", async () => {
  const { stderr, ending } = await runFake(["generat"]);
  assertEquals([stderr, ending], [`Error: Unknown command "generat", did you mean "generate"?\n`, { code: 2 }]);
});

/** Runs with a model whose loading fails. */
function runFailing(error: unknown, ...flags: string[]): Promise<RunResult> {
  return runGenerate(["hello", ...flags], (world) => {
    world.models.findModelFolder = () => Promise.reject(error);
  });
}

const codes: [ErrorKind, number][] = [
  ["usage", 2],
  ["model", 3],
  ["context", 4],
  ["device", 5],
  ["memory", 6],
  ["network", 7],
  ["numeric", 8],
];

for (const [kind, code] of codes) {
  Deno.test(`pagesift ends with ${code} after an error of kind "${kind}"`, async () => {
    const { ending, stderr, stdout } = await runFailing(new PagesiftError(kind, "Something failed"));
    assertEquals([ending, stderr, stdout], [{ code }, "Error: Something failed\n", ""]);
  });
}

Deno.test("pagesift ends with 1 after an error that nobody foresaw", async () => {
  const { ending, stderr } = await runFailing(new TypeError("x is undefined"));
  assertEquals(ending, { code: 1 });
  assertMatch(stderr, /^Error: Internal error: x is undefined; .*--verbose.*\n$/);
});

Deno.test("pagesift --verbose shows the stack of an internal error", async () => {
  const { stderr } = await runFailing(new TypeError("x is undefined"), "--verbose");
  assertStringIncludes(stderr, "main_test.ts");
});

Deno.test("pagesift ends with 6 when a buffer cannot be allocated", async () => {
  const { ending } = await runFailing(new RangeError("Array buffer allocation failed"));
  assertEquals(ending, { code: 6 });
});

Deno.test("pagesift keeps an error on one line and shows its control characters", async () => {
  const { stderr } = await runFailing(new PagesiftError("model", "Bad name \x1b[2J\nsecond"));
  assertEquals(stderr, "Error: Bad name \\x1b[2J\\nsecond\n");
});
