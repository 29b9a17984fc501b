import { assertEquals, assertMatch } from "@std/assert";
import { runGenerate } from "./fake_world.ts";

Deno.test("generate ends by the signal after Ctrl-C and keeps the text so far", async () => {
  const { stdout, ending } = await runGenerate(["hi"], (world) => {
    world.engine.beforePiece = (index) => index === 1 && world.signal("SIGINT");
  });
  assertEquals([stdout, ending], ["Hello\n", { signal: "SIGINT" }]);
});

Deno.test("generate prints the stats after Ctrl-C", async () => {
  const { stderr } = await runGenerate(["hi", "--verbose"], (world) => {
    world.engine.beforePiece = (index) => index === 1 && world.signal("SIGINT");
  });
  assertMatch(stderr, /\nprompt +8,192 tokens[^]*\nfinish +aborted\n$/);
});

Deno.test("generate --json prints the object with finish aborted after Ctrl-C", async () => {
  const { stdout } = await runGenerate(["hi", "--json"], (world) => {
    world.engine.beforePiece = (index) => index === 1 && world.signal("SIGINT");
  });
  const { text, ids, finish } = JSON.parse(stdout);
  assertEquals({ text, ids, finish }, { text: "Hello", ids: [72], finish: "aborted" });
});

Deno.test("generate prints nothing to stdout when Ctrl-C comes before the first token", async () => {
  const { stdout, ending } = await runGenerate(["hi"], (world) => {
    world.engine.beforePiece = () => world.signal("SIGINT");
  });
  assertEquals([stdout, ending], ["", { signal: "SIGINT" }]);
});

Deno.test("generate does not wait for a load that Ctrl-C interrupts", async () => {
  const { stderr, ending } = await runGenerate(["hi"], (world) => {
    world.models.loadEngine = () => {
      world.signal("SIGTERM");
      return new Promise(() => {});
    };
  });
  assertEquals([stderr, ending], ["", { signal: "SIGTERM" }]);
});

Deno.test("generate does not wait for stdin when Ctrl-C comes", async () => {
  const { ending } = await runGenerate([], (world) => {
    world.stdin = {
      isTerminal: () => false,
      read: () => {
        world.signal("SIGINT");
        return new Promise(() => {});
      },
    };
  });
  assertEquals(ending, { signal: "SIGINT" });
});

Deno.test("generate dies at once at the second Ctrl-C", async () => {
  const { world } = await runGenerate(["hi"], (world) => {
    world.engine.beforePiece = () => {
      world.signal("SIGINT");
      world.signal("SIGINT");
    };
  });
  assertEquals(world.died, "SIGINT");
});
