import { assertEquals, assertMatch } from "@std/assert";
import { FakeSource, runGenerate } from "./fake_world.ts";

const MESSAGE = /^Error: .*1 token; .*--max-tokens/;

Deno.test("generate keeps the text and ends with 6 when the KV pool is exhausted", async () => {
  const { ending, stdout, stderr } = await runGenerate(["hi"], (world) => {
    world.engine.pieces = [{ id: 72, text: "Hello" }, { id: -1, text: "", finish: "kv_exhausted" }];
  });
  assertEquals([ending, stdout], [{ code: 6 }, "Hello\n"]);
  assertMatch(stderr, MESSAGE);
});

Deno.test("generate --jsonl prints all lines and ends with 6 when the KV pool is exhausted", async () => {
  const { ending, stdout, stderr } = await runGenerate(["--jsonl", "-"], (world) => {
    world.stdin = new FakeSource('{"prompt": "a"}\n{"prompt": "b"}');
    world.engine.batchPieces = [
      { index: 0, id: 72, text: "H" },
      { index: 1, id: 73, text: "I" },
      { index: 0, id: -1, text: "", finish: "kv_exhausted" },
      { index: 1, id: 74, text: "J", finish: "stop" },
    ];
  });
  assertEquals(ending, { code: 6 });
  assertEquals(stdout.split("\n").map((line) => line && JSON.parse(line).finish), ["kv_exhausted", "stop", ""]);
  assertMatch(stderr, MESSAGE);
});
