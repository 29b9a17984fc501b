/** The command lines that help shows can be copied: each is parsed as the program would. */
import { assert, assertEquals } from "@std/assert";
import { planAttention } from "../../bench/attention_plan.ts";
import { planGenerate } from "../../bench/generate_plan.ts";
import { planQuality } from "../../bench/quality_plan.ts";
import { parseArguments } from "../../cli/args.ts";
import type { Command } from "../../cli/command.ts";
import { type Entry, entryOf, isMenu, type Menu } from "../../cli/menu.ts";
import { sparseOf } from "../../cli/options/engine_options.ts";
import { program } from "../../cli/program.ts";
import { runFake } from "./fake_world.ts";

/** Checks of what lies behind the parser: lists of the benchmarks, budgets. */
const PLANS: Readonly<Record<string, (values: never) => unknown>> = {
  "generate": sparseOf,
  "inspect-pages": sparseOf,
  "bench attention": planAttention,
  "bench generate": planGenerate,
  "bench quality": planQuality,
};

interface Described {
  path: string;
  entry: Entry;
  examples: readonly string[];
}

function entries(menu: Menu, path: string): Described[] {
  const below = menu.commands.flatMap((entry) => {
    const here = `${path}${entry.name}`;
    return isMenu(entry) ? entries(entry, `${here} `) : [{ path: here, entry, examples: entry.help.examples }];
  });
  return [{ path: path.trim(), entry: menu, examples: menu.examples }, ...below];
}

/** The words that a shell would pass to pagesift, without redirections, pipes and what surrounds `<( )`. */
function wordsOf(example: string): string[] {
  const [, text = ""] = /pagesift ((?:"[^"]*"|[^"<>|)])*)/.exec(example) ?? [];
  return [...text.matchAll(/"([^"]*)"|(\S+)/g)].map(([, inQuotes, bare]) => inQuotes ?? bare ?? "");
}

/** The command that words name, and its arguments. */
function commandOf(words: readonly string[], menu: Menu, path: string): [Command, string, readonly string[]] {
  const [name = "", ...rest] = words;
  const entry = entryOf(menu, name);
  return isMenu(entry) ? commandOf(rest, entry, `${path}${name} `) : [entry, `${path}${name}`, rest];
}

for (const { path, entry, examples } of entries(program, "")) {
  for (const example of examples) {
    Deno.test(`pagesift ${path} --help: "${example}" parses`, () => {
      const [command, name, args] = commandOf(wordsOf(example), program, "");
      const { values } = parseArguments(command.options, args);
      PLANS[name]?.(values as never);
      if (!isMenu(entry)) assertEquals(command, entry);
    });
  }

  Deno.test(`pagesift ${path} --help begins with the usage, then at least two examples`, async () => {
    const { stdout } = await runFake([...path.split(" ").filter((word) => word !== ""), "--help"]);
    const [usage, shown] = stdout.split("\n\n");
    assert(usage?.startsWith("Usage: pagesift "), stdout);
    assertEquals(shown, ["Examples:", ...examples.map((example) => `  ${example}`)].join("\n"));
    assert(examples.length >= 2);
  });
}
