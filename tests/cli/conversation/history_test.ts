/** Lines that a conversation remembers for the next one. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { historyFile } from "../../../cli/conversation/history.ts";
import { withFiles } from "../../support/folders.ts";
import { FakeTerminal, runGenerate, type RunResult } from "../fake_world.ts";

const UP = "\x1b[A";
const CTRL_D = "\x04";

function converse(keys: string[], variables: Record<string, string>): Promise<RunResult> {
  return runGenerate(["--chat"], (world) => {
    world.stdin = new FakeTerminal(keys);
    world.stderr.terminal = true;
    world.variables = variables;
  });
}

/** The questions of a conversation that begins with these keys. */
async function questions(keys: string[], file: string): Promise<(string | undefined)[]> {
  const { engine } = await converse([...keys, CTRL_D], { PAGESIFT_HISTORY: file });
  return engine.prompts.map((prompt) => /([^>]*)<assistant>$/.exec(prompt)?.[1]);
}

for (
  const [os, env, expected] of [
    ["linux", { HOME: "/home/u" }, "/home/u/.local/state/pagesift/history"],
    ["linux", { HOME: "/home/u", XDG_STATE_HOME: "/s" }, "/s/pagesift/history"],
    ["darwin", { HOME: "/Users/u" }, "/Users/u/Library/Application Support/pagesift/history"],
    ["linux", { HOME: "/home/u", PAGESIFT_HISTORY: "/h" }, "/h"],
    ["linux", {}, undefined],
  ] as const
) {
  Deno.test(`the history on ${os} with ${JSON.stringify(env)} is ${expected}`, () => {
    assertEquals(historyFile((name) => (env as Record<string, string>)[name], os), expected);
  });
}

Deno.test("a conversation repeats lines of an earlier one", async () => {
  await withFiles({}, async (folder) => {
    const file = join(folder, "new", "history");
    await questions(["one\r", "two\r"], file);
    assertEquals(await questions([UP + UP + "!\r"], file), ["one!"]);
  });
});

Deno.test("the history is a file that only its owner reads", { ignore: Deno.build.os === "windows" }, async () => {
  await withFiles({}, async (folder) => {
    await questions(["one\r"], join(folder, "history"));
    assertEquals((await Deno.stat(join(folder, "history"))).mode! & 0o777, 0o600);
  });
});

Deno.test("the history leaves out lines with long pastes and blank lines", async () => {
  await withFiles({}, async (folder) => {
    const file = join(folder, "history");
    await questions(["Sum up \x1b[200~a\rb\x1b[201~\r", " \r", "one\r"], file);
    assertEquals(await Deno.readTextFile(file), "one\n");
  });
});

Deno.test("a long history is shortened to its latest 1,000 lines", async () => {
  const lines = Array.from({ length: 2000 }, (_, index) => `line ${index}\n`);
  await withFiles({ history: lines.join("") }, async (folder) => {
    assertEquals(await questions([UP + "\r"], join(folder, "history")), ["line 1999"]);
    const text = await Deno.readTextFile(join(folder, "history"));
    assertEquals(text, [...lines.slice(-1000), "line 1999\n"].join(""));
  });
});

Deno.test("a history that cannot be written is off after one warning", async () => {
  await withFiles({ plain: "" }, async (folder) => {
    const { stderr, engine } = await converse(["one\r", UP + "\r", CTRL_D], {
      PAGESIFT_HISTORY: join(folder, "plain", "history"),
    });
    assertStringIncludes(stderr, "PAGESIFT_HISTORY");
    assertEquals(stderr.match(/Warning/g)?.length, 1);
    assertEquals(engine.prompts.length, 2);
  });
});

Deno.test("a device as history keeps nothing, and its mode", { ignore: Deno.build.os === "windows" }, async () => {
  const before = (await Deno.stat("/dev/null")).mode;
  assertEquals(await questions(["one\r"], "/dev/null"), ["one"]);
  assertEquals((await Deno.stat("/dev/null")).mode, before);
});

Deno.test("without a home folder a conversation runs without a history", async () => {
  const { stderr } = await converse(["one\r", CTRL_D], {});
  assertEquals(/Warning/.test(stderr), false);
  assertMatch(stderr, /left/);
});
