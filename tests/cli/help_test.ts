import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { renderHelp } from "../../cli/help.ts";
import { generateOptions } from "../../cli/options/generate.ts";
import { runFake } from "./fake_world.ts";

const help = renderHelp({ usage: ["generate"], examples: [], description: [] }, generateOptions);

for (const { flags, group } of Object.values(generateOptions)) {
  Deno.test(`renderHelp() lists ${flags.at(-1)}`, () => assertStringIncludes(help, `  ${flags.join(", ")}`));
  Deno.test(`renderHelp() has the group of ${flags.at(-1)}`, () => assertStringIncludes(help, `\n${group}:\n`));
}

Deno.test("generateOptions gives no flag to two options", () => {
  const flags = Object.values(generateOptions).flatMap((option) => option.flags);
  assertEquals(flags.length, new Set(flags).size);
});

Deno.test("renderHelp() shows a default from the table", () => {
  assertStringIncludes(help.replace(/\s+/g, " "), "[default: 256]");
});

Deno.test("renderHelp() keeps lines within 110 columns", () => {
  assertEquals(help.split("\n").filter((line) => line.length > 110), []);
});

Deno.test("generate --help prints the help to stdout", async () => {
  const { stdout, stderr, ending } = await runFake(["generate", "--help"]);
  assert(stdout.startsWith("Usage: pagesift generate [OPTIONS] [PROMPT]\n"));
  assertEquals([stderr, ending], ["", { code: 0 }]);
});

Deno.test("generate --help tells every exit code", async () => {
  const { stdout } = await runFake(["generate", "--help"]);
  for (
    const text of ["0 done", "1 internal", "2 usage", "3 model", "4 prompt", "5 no", "6 out", "7 network", "8 numeric"]
  ) {
    assertStringIncludes(stdout.replace(/\s+/g, " "), text);
  }
});
