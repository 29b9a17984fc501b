import { assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { escapeControls } from "../../engine/text/escape.ts";
import { type FakeWorld, runGenerate } from "./fake_world.ts";

const escapes = "\x1b[31mred\x1b]0;title\x07\r\u202ebidi";

/** An engine that says one text. */
function saying(text: string, change: (world: FakeWorld) => void = () => {}): (world: FakeWorld) => void {
  return (world) => {
    world.engine.pieces = [{ id: 1, text, finish: "stop" }];
    change(world);
  };
}

// deno-lint-ignore no-control-regex
const ESCAPE = /\x1b/;

Deno.test("escapeControls() keeps tabs, newlines and all other text", () => {
  const text = "\tone\ntwo é \u{1f468}\u200d\u{1f469} \u00a0";
  assertEquals(escapeControls(text), text);
});

Deno.test("escapeControls() spells out ESC, BEL, CR, delete, C1 and bidirectional marks", () => {
  assertEquals(escapeControls("\x1b\x07\r\x7f\x9b\u202e\u2066"), "\\x1b\\x07\\r\\x7f\\x9b\\u{202e}\\u{2066}");
});

Deno.test("generate writes control characters as they are into a pipe", async () => {
  assertEquals((await runGenerate(["hi"], saying(escapes))).stdout, `${escapes}\n`);
});

Deno.test("generate shows control characters escaped on a terminal", async () => {
  const { stdout } = await runGenerate(["hi"], saying(escapes, (world) => world.stdout.terminal = true));
  assertEquals(stdout, "\\x1b[31mred\\x1b]0;title\\x07\\r\\u{202e}bidi\n");
});

Deno.test("generate ends the answer with a newline", async () => {
  assertEquals((await runGenerate(["hi"], saying("end"))).stdout, "end\n");
});

Deno.test("generate adds no second newline to an answer that ends with one", async () => {
  assertEquals((await runGenerate(["hi"], saying("end\n"))).stdout, "end\n");
});

Deno.test("generate goes on after a write that took only a part", async () => {
  const { stdout } = await runGenerate(["hi"], saying("grüße 1234567890", (world) => world.stdout.bytesPerWrite = 3));
  assertEquals(stdout, "grüße 1234567890\n");
});

Deno.test("generate stops quietly when the reader of stdout goes away", async () => {
  const { stderr, ending, engine } = await runGenerate(["hi", "--verbose"], (world) => {
    world.engine.beforePiece = (index) => {
      if (index === 1) world.stdout.failure = new Deno.errors.BrokenPipe("Broken pipe");
    };
    world.engine.pieces.push({ id: 1, text: "never" });
  });
  assertEquals([ending, engine.disposed], [{ code: 0 }, true]);
  assertNotMatch(stderr, /Error|answer/);
});

Deno.test("generate ends with 1 when stdout is full", async () => {
  const { stderr, ending } = await runGenerate(["hi"], (world) => {
    world.stdout.failure = new Error("No space left on device (os error 28)");
  });
  assertMatch(stderr, /^Error: .*No space left on device.*\n$/);
  assertEquals(ending, { code: 1 });
});

Deno.test("generate answers even when stderr is closed", async () => {
  const { stdout, ending } = await runGenerate(["hi", "--verbose"], (world) => {
    world.stderr.failure = new Deno.errors.BrokenPipe("Broken pipe");
  });
  assertEquals([stdout, ending], ["Hello world\n", { code: 0 }]);
});

Deno.test("generate writes nothing to stderr when it is no terminal", async () => {
  assertEquals((await runGenerate(["hi"])).stderr, "");
});

Deno.test("generate writes stats in plain text when stderr is no terminal", async () => {
  const { stderr } = await runGenerate(["hi", "--verbose"]);
  assertMatch(stderr, /\nprompt +8,192 tokens/);
  assertNotMatch(stderr, ESCAPE);
});

Deno.test("generate colours stderr on a terminal", async () => {
  assertMatch((await runGenerate(["hi"], (world) => world.stderr.terminal = true)).stderr, ESCAPE);
});

const plain: [name: string, args: string[], variables: Record<string, string>][] = [
  ["under NO_COLOR", [], { NO_COLOR: "1" }],
  ["on a dumb terminal", [], { TERM: "dumb" }],
  ["with --color off", ["--color", "off"], {}],
];

for (const [name, args, variables] of plain) {
  Deno.test(`generate writes no escape codes ${name}`, async () => {
    const { stderr } = await runGenerate(["hi", ...args], (world) => {
      world.stderr.terminal = true;
      world.variables = variables;
    });
    assertNotMatch(stderr, ESCAPE);
  });
}

Deno.test("generate --color on colours even a pipe", async () => {
  assertMatch((await runGenerate(["hi", "--verbose", "--color", "on"])).stderr, ESCAPE);
});

Deno.test("generate --quiet leaves stderr empty on a terminal", async () => {
  const { stderr } = await runGenerate(["hi", "--quiet"], (world) => {
    world.stderr.terminal = true;
    world.engine.notices = [{ level: "warning", text: "No CUDA device answered; using the CPU" }];
  });
  assertEquals(stderr, "");
});

Deno.test("generate puts an error on a line of its own after a part of the answer", async () => {
  const { stdout, ending } = await runGenerate(["hi"], (world) => {
    world.engine.beforePiece = (index) => {
      if (index === 1) throw new Error("lost");
    };
  });
  assertEquals([stdout, ending], ["Hello\n", { code: 1 }]);
});
