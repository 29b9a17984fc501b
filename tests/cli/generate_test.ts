import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { Notice } from "../../engine/types.ts";
import { FakeSource, runGenerate } from "./fake_world.ts";

Deno.test("generate streams the text to stdout", async () => {
  const seen: string[] = [];
  const { stdout, ending } = await runGenerate(["hi"], (world) => {
    world.engine.beforePiece = () => seen.push(world.stdout.text);
  });
  assertEquals([seen, stdout, ending], [["", "Hello"], "Hello world\n", { code: 0 }]);
});

Deno.test("generate --no-stream prints the text when it is complete", async () => {
  const seen: string[] = [];
  const { stdout } = await runGenerate(["hi", "--no-stream"], (world) => {
    world.engine.beforePiece = () => seen.push(world.stdout.text);
  });
  assertEquals([seen, stdout], [["", ""], "Hello world\n"]);
});

Deno.test("generate --json prints one object", async () => {
  const { stdout, engine } = await runGenerate(["hi", "--json"]);
  const stats = { model: "default", ...engine.stats };
  assertEquals(JSON.parse(stdout), { text: "Hello world", ids: [72, 87], finish: "stop", stats });
  assertMatch(stdout, /^\{.*\}\n$/);
});

Deno.test("generate --json tells the seed of a sampled answer", async () => {
  const { stdout } = await runGenerate(["hi", "--json", "--temp", "1", "--seed", "7"]);
  assertEquals(JSON.parse(stdout).stats.seed, 7);
});

Deno.test("generate passes the sampling flags on", async () => {
  const { engine } = await runGenerate(
    "hi -n 5 --temp 0.7 --top-k 40 --top-p 0.9 --min-p 0.05 --repeat-penalty 1.1 --repeat-last-n 32 --seed 9 --stop END"
      .split(" "),
  );
  const { maxTokens, temperature, topK, topP, minP, repeatPenalty, repeatLastTokens, seed, stop } = engine.options!;
  assertEquals({ maxTokens, temperature, topK, topP, minP }, {
    maxTokens: 5,
    temperature: 0.7,
    topK: 40,
    topP: 0.9,
    minP: 0.05,
  });
  assertEquals({ repeatPenalty, repeatLastTokens, seed, stop }, {
    repeatPenalty: 1.1,
    repeatLastTokens: 32,
    seed: 9,
    stop: ["END"],
  });
});

Deno.test("generate passes the sparse flags on", async () => {
  const { engine } = await runGenerate(
    ("hi --sparse on --sparse-budget 256 --page-size 16 --sparse-scorer diag --sparse-lambda 2 --sparse-sink 3 " +
      "--sparse-recent 4 --dense-layers 5 --sparse-levels 1 --sparse-prefill on --prefill-budget 1k").split(" "),
  );
  assertEquals(engine.options!.sparse, {
    mode: "on",
    budgetTokens: 256,
    pageSize: 16,
    scorer: "diag",
    lambda: 2,
    sinkPages: 3,
    recentPages: 4,
    denseLayers: 5,
    levels: 1,
    prefill: "on",
    prefillBudgetTokens: 1024,
  });
});

Deno.test("generate leaves the lambda to the scorer unless it is given", async () => {
  const { engine } = await runGenerate(["hi"]);
  assertEquals("lambda" in engine.options!.sparse!, false);
});

Deno.test("generate passes the device, the context and the threads on", async () => {
  const { engine } = await runGenerate("hi --device cpu -c 1k -t 2".split(" "));
  const { device, maxContext, threads } = engine.loaded!;
  assertEquals({ device, maxContext, threads }, { device: "cpu", maxContext: 1024, threads: 2 });
});

Deno.test("generate loads the model of -m", async () => {
  assertEquals((await runGenerate(["hi", "-m", "org/name"])).world.wanted, ["org/name"]);
});

Deno.test("generate loads the model of PAGESIFT_MODEL", async () => {
  const { world } = await runGenerate(["hi"], (world) => world.variables = { PAGESIFT_MODEL: "/models/mine" });
  assertEquals(world.wanted, ["/models/mine"]);
});

Deno.test("generate loads the shipped model otherwise, wherever it is called", async () => {
  const { world } = await runGenerate(["hi"]);
  assertEquals(world.wanted, [new URL("../../models/default", import.meta.url).pathname]);
});

Deno.test("generate adds special tokens and takes those in the text as text", async () => {
  const { engine } = await runGenerate(["a<s>"]);
  assertEquals(engine.prompts, ["<s>a<s>"]);
});

Deno.test("generate --raw adds no special tokens", async () => {
  assertEquals((await runGenerate(["--raw", "a"])).engine.prompts, ["a"]);
});

Deno.test("generate --chat uses the chat template", async () => {
  assertEquals((await runGenerate(["--chat", "Hi"])).engine.prompts, ["<user>Hi<assistant>"]);
});

Deno.test("generate --system implies the chat template", async () => {
  assertEquals((await runGenerate(["--system", "Be brief", "Hi"])).engine.prompts, [
    "<system>Be brief<user>Hi<assistant>",
  ]);
});

Deno.test("generate --chat ends with 2 when the model has no template", async () => {
  const { stderr, ending } = await runGenerate(["--chat", "Hi"], ({ engine }) => {
    engine.tokenizer = { ...engine.tokenizer, hasChatTemplate: false };
  });
  assertMatch(stderr, /^Error: .*no chat template.*\n$/);
  assertEquals(ending, { code: 2 });
});

Deno.test("generate refuses --raw with --chat before the model is loaded", async () => {
  const { engine, stderr } = await runGenerate(["--raw", "--chat", "Hi"]);
  assertStringIncludes(stderr, "Error: --raw and --chat exclude each other");
  assertEquals(engine.loaded, undefined);
});

Deno.test("generate names the nearest budgets of whole pages", async () => {
  const { stderr, ending } = await runGenerate(["hi", "--sparse-budget", "100"]);
  const nearest = "not a multiple of the page size; the nearest are 96 and 104";
  assertEquals(stderr, `Error: --sparse-budget 100 with --page-size 8 is ${nearest}\n`);
  assertEquals(ending, { code: 2 });
});

Deno.test("generate refuses a budget below a page", async () => {
  const { stderr } = await runGenerate(["hi", "--sparse-budget", "8", "--page-size", "64"]);
  assertEquals(stderr, "Error: --sparse-budget 8 with --page-size 64 is less than a page; the smallest is 64\n");
});

Deno.test("generate warns of what the engine warns of", async () => {
  const { stderr } = await runGenerate(["hi"], ({ engine }) => {
    engine.notices = [{ level: "warning", text: "No CUDA device answered; using the CPU" }];
  });
  assertEquals(stderr, "Warning: No CUDA device answered; using the CPU\n");
});

Deno.test("generate mentions what needs no action with --verbose only", async () => {
  const notices: Notice[] = [{ level: "info", text: "No CUDA device; using the CPU" }];
  const [short, verbose] = await Promise.all(
    [[], ["-v"]].map((flags) => runGenerate(["hi", ...flags], ({ engine }) => engine.notices = notices)),
  );
  assertEquals(short?.stderr, "");
  assertMatch(verbose?.stderr ?? "", /^No CUDA device; using the CPU$/m);
});

Deno.test("generate disposes the engine", async () => assertEquals((await runGenerate(["hi"])).engine.disposed, true));

Deno.test("generate --verbose tells the stages and the stats", async () => {
  const { stderr } = await runGenerate(["hi", "--verbose", "-m", "tiny"]);
  assertMatch(stderr, /^Loading tiny\nPrompt of 3 tokens, without a chat template\nmodel +tiny on cpu/);
  assertMatch(stderr, /\nfinish +stop\n$/);
});

Deno.test("generate samples as the model does, and --verbose shows how", async () => {
  const { stderr, engine } = await runGenerate(["hi", "--verbose", "--top-k", "5"], (world) => {
    world.engine.sampling = { temperature: 0.6, topK: 20, topP: 0.95 };
  });
  const { temperature, topK, topP } = engine.options!;
  assertEquals([temperature, topK, topP], [0.6, 5, 0.95]);
  assertMatch(stderr, /\nsampling temperature 0\.6, top-k 5, top-p 0\.95\nseed +\d+\n/);
});

Deno.test("generate --temp 0 leaves out how the model samples", async () => {
  const { stderr, engine } = await runGenerate(["hi", "--verbose", "--temp", "0"], (world) => {
    world.engine.sampling = { temperature: 0.6, topK: 20, repeatPenalty: 1.1 };
  });
  const { temperature, topK, repeatPenalty } = engine.options!;
  assertEquals([temperature, topK, repeatPenalty, stderr.includes("sampling")], [0, undefined, undefined, false]);
});

Deno.test("generate --verbose tells the seed of a sampled answer", async () => {
  const { stderr } = await runGenerate(["hi", "--verbose", "--temp", "1", "-s", "7"]);
  assertStringIncludes(stderr, "\nseed     7\n");
});

Deno.test("generate keeps a final piece without a token out of the ids", async () => {
  const { stdout } = await runGenerate(
    ["hi", "--json"],
    ({ engine }) => engine.pieces.push({ id: -1, text: "", finish: "aborted" }),
  );
  assertEquals(JSON.parse(stdout).ids, [72, 87]);
});

Deno.test("generate reads stdin before it loads the model", async () => {
  const { engine } = await runGenerate([], (world) => world.stdin = new FakeSource(new Uint8Array([0xff])));
  assertEquals(engine.loaded, undefined);
});

Deno.test("generate passes --verify and --verify-limit to the engine", async () => {
  const { engine } = await runGenerate(["hi", "--verify=4", "--verify-limit", "0.1"]);
  assertEquals(engine.options!.verify, { every: 4, limit: 0.1 });
});

for (const flags of [["--verify-limit", "0.1"], ["--verify", "--sparse", "off"]]) {
  Deno.test(`generate refuses ${flags.join(" ")} before it loads the model`, async () => {
    const { stderr, ending, engine } = await runGenerate(["hi", ...flags]);
    assertStringIncludes(stderr, "--verify");
    assertEquals([ending, engine.loaded], [{ code: 2 }, undefined]);
  });
}
