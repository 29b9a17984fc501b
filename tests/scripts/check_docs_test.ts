/** The check of the docs finds links, commands, flags and paths that do not exist. */
import { assertEquals, assertMatch } from "@std/assert";
import { checkCommand, checkLinks, checkSpan, codeOf } from "../../scripts/gate/check_docs.ts";

Deno.test("a link to a file that does not exist is a problem", () => {
  assertMatch(checkLinks("docs/bench.md", "[x](absent.md)")[0] ?? "", /absent\.md/);
});

Deno.test("a link to a heading that does not exist is a problem", () => {
  assertMatch(checkLinks("docs/bench.md", "[x](pages.md#absent)")[0] ?? "", /heading/);
});

Deno.test("links to a file, to a heading and to a web page are none", () => {
  const links = "[a](pages.md) [b](pages.md#a-page) [c](../README.md) [d](https://example.org/x)";
  assertEquals(checkLinks("docs/bench.md", links), []);
});

Deno.test("a task that does not exist is a problem", () => {
  assertMatch(checkCommand("deno task absent")[0] ?? "", /absent/);
});

Deno.test("a flag that a task's script does not take is a problem", () => {
  assertEquals(checkCommand("deno task soak tokens --count 5"), []);
  assertMatch(checkCommand("deno task soak tokens --absent 5")[0] ?? "", /--absent/);
});

Deno.test("a flag of another command is a problem", () => {
  assertEquals(checkCommand("$ cat book.txt | deno task pagesift generate -n 40 --truncate middle"), []);
  assertMatch(checkCommand("pagesift bench attention --truncate middle")[0] ?? "", /--truncate/);
});

Deno.test("flags of a job on Ray belong to it, and those after -- to generate", () => {
  assertEquals(checkCommand("python -m pagesift_ray --input FILE --workers 2 -- --chat -c 4k"), []);
  assertMatch(checkCommand("python -m pagesift_ray --chat")[0] ?? "", /--chat/);
  assertMatch(checkCommand("python -m pagesift_ray --workers 2 -- --workers 2")[0] ?? "", /--workers/);
});

Deno.test("a command that does not exist is a problem", () => {
  assertMatch(checkCommand("pagesift absent")[0] ?? "", /absent/);
});

Deno.test("flags of a Python module may be defined in a module that it imports", () => {
  assertEquals(checkCommand("python -m train.finetune --mask soft --data FILE"), []);
  assertMatch(checkCommand("python -m train.finetune --absent")[0] ?? "", /--absent/);
});

Deno.test("a flag in backticks must belong to some command or script", () => {
  assertEquals(checkSpan("--mask soft|hard", '"--mask"'), []);
  assertMatch(checkSpan("--absent", '"--mask"')[0] ?? "", /--absent/);
});

Deno.test("a repository path in backticks must exist", () => {
  assertEquals(checkSpan("csrc/cuda/layout.cuh", ""), []);
  assertMatch(checkSpan("csrc/absent.h", "")[0] ?? "", /absent\.h/);
});

Deno.test("commands are read from fenced and indented blocks, with continued lines joined", () => {
  const { commands } = codeOf(
    "Text\n\n```sh\ndeno task \\\n  soak\n```\n\n    deno task fuzz\n\n```ts\nconst x = 1;\n```\n",
  );
  assertEquals(commands, ["deno task soak", "deno task fuzz"]);
});

Deno.test("lines without a prompt are output in a block that has prompts", () => {
  assertEquals(codeOf("```\n$ deno task fuzz\npagesift said so\n```\n").commands, ["$ deno task fuzz"]);
});
