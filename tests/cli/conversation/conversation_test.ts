/** Conversations on a terminal made of variables, with a model that says prepared pieces. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { withFiles } from "../../support/folders.ts";
import { FakeSource, FakeTerminal, type FakeWorld, runGenerate, type RunResult } from "../fake_world.ts";

const CTRL_C = "\x03";
const CTRL_D = "\x04";

function converse(
  keys: string[],
  args: string[] = [],
  prepare: (world: FakeWorld) => void = () => {},
): Promise<RunResult> {
  return runGenerate(["--chat", ...args], (world) => {
    world.stdin = new FakeTerminal(keys);
    world.stderr.terminal = true;
    prepare(world);
  });
}

Deno.test("a conversation gives the model all messages so far at every turn", async () => {
  const { engine, stdout, ending } = await converse(["one\r", "two\r", CTRL_D]);
  assertEquals(engine.prompts, [
    "<user>one<assistant>",
    "<user>one<assistant>Hello world<user>two<assistant>",
  ]);
  assertEquals([stdout, ending], ["Hello world\nHello world\n", { code: 0 }]);
});

Deno.test("a conversation continues a line that ends with a backslash", async () => {
  const { engine } = await converse(["one \\\r", "two\r", CTRL_D]);
  assertEquals(engine.prompts, ["<user>one \ntwo<assistant>"]);
});

Deno.test("a conversation takes keys that were pressed before the answer was complete", async () => {
  const { engine } = await converse(["one\rtwo\r/quit\r"]);
  assertEquals(engine.prompts.length, 2);
});

Deno.test("a conversation takes text that was pasted before the answer was complete as one question", async () => {
  const { engine } = await converse(["😀\r\x1b[200~a\rb\x1b[201~\r/quit\r"]);
  assertEquals(engine.prompts, ["<user>😀<assistant>", "<user>😀<assistant>Hello world<user>a\nb<assistant>"]);
});

Deno.test("a conversation edits lines with the arrow keys and repeats them from the history", async () => {
  const { engine } = await converse(["ac\x1b[Db\r", "\x1b[A!\r", CTRL_D]);
  assertEquals(engine.prompts.map((prompt) => /([^>]*)<assistant>$/.exec(prompt)?.[1]), ["abc", "abc!"]);
});

Deno.test("a conversation pastes lines into one question", async () => {
  const { engine } = await converse(["Sum up \x1b[200~a\rb\x1b[201~\r", CTRL_D]);
  assertEquals(engine.prompts, ["<user>Sum up a\nb<assistant>"]);
});

Deno.test("a conversation ends its answer at Ctrl-C, keeps the text so far and goes on", async () => {
  const { engine, stdout, ending } = await converse(["one\r", "two\r", CTRL_D], [], (world) => {
    let pieces = 0;
    world.engine.beforePiece = () => ++pieces === 2 && world.signal("SIGINT");
  });
  assertEquals(engine.prompts[1], "<user>one<assistant>Hello<user>two<assistant>");
  assertEquals([stdout, ending], ["Hello\nHello world\n", { code: 0 }]);
});

Deno.test("a conversation ends at the second Ctrl-C during an answer", async () => {
  const { engine, ending } = await converse(["one\r", "two\r"], [], (world) => {
    world.engine.beforePiece = () => {
      world.signal("SIGINT");
      world.signal("SIGINT");
    };
  });
  assertEquals([engine.prompts.length, ending], [1, { signal: "SIGINT" }]);
});

Deno.test("a conversation drops a line at Ctrl-C", async () => {
  const { engine, stderr } = await converse([`one${CTRL_C}`, CTRL_C, "two\r", CTRL_D]);
  assertEquals(engine.prompts, ["<user>two<assistant>"]);
  assertMatch(stderr, /Ctrl-D ends the conversation\n.*\^C/s);
});

Deno.test("a conversation ends by SIGTERM at its prompt", async () => {
  const { ending, world } = await converse([], [], (world) => {
    world.stdin = {
      isTerminal: () => true,
      read: () => {
        world.signal("SIGTERM");
        return new Promise(() => {});
      },
    };
  });
  assertEquals([ending, world.keyMode], [{ signal: "SIGTERM" }, "lines"]);
});

Deno.test("a conversation stops at Ctrl-Z and goes on", async () => {
  const { engine, world } = await converse(["on\x1ae\r", CTRL_D]);
  assertEquals([engine.prompts, world.suspended], [["<user>one<assistant>"], 1]);
});

Deno.test("a conversation reads keys at its prompt and takes signals during the answer", async () => {
  const modes: string[] = [];
  const { world } = await converse(["one\r", CTRL_D], [], (world) => {
    world.engine.beforePiece = () => modes.push(world.keyMode);
  });
  assertEquals([modes[0], world.keyMode], ["signals", "lines"]);
});

Deno.test("a conversation shows the context that is left", async () => {
  const { stderr } = await converse(["one\r", CTRL_D]);
  assertMatch(stderr, /context .*22 of 1,000 tokens, 978 left/);
});

Deno.test("a conversation asks the first question about the files of -f", async () => {
  await withFiles({ "a.txt": "Text\n" }, async (folder) => {
    const { engine, stderr } = await converse(["Who?\r", "Why?\r", CTRL_D], ["-f", join(folder, "a.txt")]);
    assertEquals(engine.prompts[0], "<user>Text\n\nWho?<assistant>");
    assertEquals(engine.prompts[1]?.split("Text").length, 2);
    assertStringIncludes(stderr, "a.txt");
  });
});

Deno.test("/file adds a text to the next question", async () => {
  await withFiles({ "a.txt": "Text" }, async (folder) => {
    const { engine } = await converse([`/file ${join(folder, "a.txt")}\r`, "Who?\r", CTRL_D]);
    assertEquals(engine.prompts, ["<user>Text\n\nWho?<assistant>"]);
  });
});

Deno.test("/system replaces the system message", async () => {
  const { engine } = await converse(["/system Be brief.\r", "one\r", CTRL_D], ["--system", "Be long."]);
  assertEquals(engine.prompts, ["<system>Be brief.<user>one<assistant>"]);
});

Deno.test("/retry answers the last question again", async () => {
  const { engine } = await converse(["one\r", "/retry\r", CTRL_D]);
  assertEquals(engine.prompts, ["<user>one<assistant>", "<user>one<assistant>"]);
});

Deno.test("/retry answers a question whose answer Ctrl-C prevented", async () => {
  const { engine } = await converse(["one\r", "two\r", "/retry\r", CTRL_D], [], (world) => {
    let pieces = 0;
    world.engine.beforePiece = () => ++pieces === 3 && world.signal("SIGINT");
  });
  assertEquals(engine.prompts[2], "<user>one<assistant>Hello world<user>two<assistant>");
});

Deno.test("/stats shows the stats of the last answer, also under --quiet", async () => {
  const { stderr } = await converse(["one\r", "/stats\r", CTRL_D], ["--quiet"]);
  assertMatch(stderr, /\nprompt +8,192 tokens[^]*\nturn +20 of 20 prompt tokens/);
});

Deno.test("/stats counts the tokens that a turn has beyond the turn before", async () => {
  const { stderr } = await converse(["one\r", "two\r", "/stats\r", CTRL_D]);
  assertMatch(stderr, /\nturn +30 of 51 prompt tokens not in the turn before/);
});

Deno.test("a conversation compares tokens where the chat template removes the thoughts of earlier turns", async () => {
  const { engine, stderr } = await converse(["one\r", "two\r", "/stats\r", CTRL_D], [], ({ engine }) => {
    const pieces = [..."<think>t</think>a"].map((text) => ({ id: text.codePointAt(0)!, text }));
    engine.pieces = [...pieces, { id: 98, text: "b", finish: "stop" }];
    const { encodeChat } = engine.tokenizer;
    engine.tokenizer = {
      ...engine.tokenizer,
      encodeChat: (messages) =>
        encodeChat(messages.map((one) => ({ ...one, content: one.content.replace(/<think>.*<.think>/, "") }))),
    };
  });
  assertEquals(engine.prompts[1], "<user>one<assistant>ab<user>two<assistant>");
  // Equal up to the first turn's answer, which began with "<".
  assertMatch(stderr, /turn +22 of 42 prompt tokens/);
});

Deno.test("/load continues the conversation that /save wrote", async () => {
  await withFiles({}, async (folder) => {
    const file = join(folder, "talk.jsonl");
    await converse(["one\r", `/save ${file}\r`, CTRL_D]);
    assertEquals(
      Deno.readTextFileSync(file),
      '{"role":"user","content":"one"}\n{"role":"assistant","content":"Hello world"}\n',
    );
    const { engine } = await converse([`/load ${file}\r`, "two\r", CTRL_D]);
    assertEquals(engine.prompts, ["<user>one<assistant>Hello world<user>two<assistant>"]);
  });
});

Deno.test("/save replaces a conversation, but no other file", async () => {
  await withFiles({ "notes.txt": "notes", "talk.jsonl": '{"role":"user","content":"old"}\n' }, async (folder) => {
    const [notes, talk] = ["notes.txt", "talk.jsonl"].map((name) => join(folder, name)) as [string, string];
    const { stderr } = await converse(["one\r", `/save ${notes}\r`, `/save ${talk}\r`, CTRL_D]);
    assertStringIncludes(stderr, "overwrite");
    assertEquals(Deno.readTextFileSync(notes), "notes");
    assertStringIncludes(Deno.readTextFileSync(talk), "Hello world");
  });
});

Deno.test("a conversation goes on after an error of a command", async () => {
  const { engine, stderr, ending } = await converse(["/file no-such-file\r", "/sav\r", "one\r", CTRL_D]);
  assertMatch(stderr, /Error: .*no-such-file[^]*Error: .*"\/save"/);
  assertEquals([engine.prompts.length, ending], [1, { code: 0 }]);
});

const LONG = "x".repeat(340);
const PASTED = `\x1b[200~${LONG}\x1b[201~\r`;

Deno.test("a conversation forgets its oldest turns when the context is full and the user agrees", async () => {
  const { engine, stderr } = await converse([PASTED, PASTED, PASTED, "\r", "Why?\r", CTRL_D], ["-n", "200"]);
  assertStringIncludes(stderr, "Forget the oldest turn?");
  assertEquals(engine.prompts[2], `<user>${LONG}<assistant>Hello world<user>${LONG}<assistant>`);
  assertEquals(engine.prompts[3], `${engine.prompts[2]}Hello world<user>Why?<assistant>`);
});

Deno.test("a conversation refuses a question that does not fit where the user forgets nothing", async () => {
  const { engine, stderr } = await converse([PASTED, PASTED, PASTED, "n\r", CTRL_D]);
  assertStringIncludes(stderr, "longer than the context");
  assertEquals(engine.prompts.length, 2);
});

Deno.test("a conversation refuses a question that is longer than the context", async () => {
  const { engine, stderr, ending } = await converse([`\x1b[200~${LONG.repeat(3)}\x1b[201~\r`, "one\r", CTRL_D]);
  assertStringIncludes(stderr, "The question alone is longer");
  assertEquals([engine.prompts, ending], [["<user>one<assistant>"], { code: 0 }]);
});

Deno.test("--thinking sets the switch of the chat template", async () => {
  const { engine } = await converse(["one\r", CTRL_D], ["--thinking", "off"]);
  assertEquals(engine.prompts, ["<user>one<assistant><thinking false>"]);
});

Deno.test("a conversation draws no colour under NO_COLOR", async () => {
  const { stderr } = await converse(["one\r", "/stats\r", CTRL_D], [], (world) => world.variables.NO_COLOR = "1");
  assert(!stderr.includes("\x1b[0m"), stderr);
});

Deno.test("a conversation on a dumb terminal sends no control sequences", async () => {
  const { stderr, engine } = await converse(["one\n", "/quit\n"], [], (world) => world.variables.TERM = "dumb");
  assert(!stderr.includes("\x1b"), stderr);
  assertEquals(engine.prompts, ["<user>one<assistant>"]);
});

Deno.test("piped input never starts a conversation", async () => {
  const { engine, ending } = await converse([], [], (world) => world.stdin = new FakeSource("one\ntwo\n"));
  assertEquals([engine.prompts, ending], [["<user>one\ntwo<assistant>"], { code: 0 }]);
});

Deno.test("a prompt never starts a conversation", async () => {
  assertEquals((await converse(["two\r"], ["one"])).engine.prompts, ["<user>one<assistant>"]);
});

for (const [args, name] of [[["--json"], "--json"], [["--truncate", "head"], "--truncate"]] as const) {
  Deno.test(`a conversation refuses ${name}`, async () => {
    const { ending, stderr } = await converse(["one\r"], [...args]);
    assertEquals(ending, { code: 2 });
    assertStringIncludes(stderr, name);
  });
}

Deno.test("a conversation requires a terminal on stderr", async () => {
  const { ending, stderr } = await converse(["one\r"], [], (world) => world.stderr.terminal = false);
  assertEquals(ending, { code: 2 });
  assertStringIncludes(stderr, "stderr");
});
