import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { BatchPiece } from "../../engine/types.ts";
import { FakeSource, type FakeWorld, runGenerate, type RunResult } from "./fake_world.ts";

/** Runs the lines of a file, which messages name by its path. */
async function runLines(
  lines: string,
  args: string[] = [],
  prepare: (world: FakeWorld) => void = () => {},
): Promise<RunResult> {
  const file = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(file, lines);
    const result = await runGenerate(["--jsonl", file, ...args], prepare);
    return { ...result, stderr: result.stderr.replaceAll(file, "FILE") };
  } finally {
    await Deno.remove(file);
  }
}

/** Runs lines that arrive on stdin. */
function runStream(
  lines: string | Uint8Array,
  args: string[] = [],
  prepare: (world: FakeWorld) => void = () => {},
): Promise<RunResult> {
  return runGenerate(["--jsonl", "-", ...args], (world) => {
    world.stdin = new FakeSource(lines);
    prepare(world);
  });
}

async function assertRefused(lines: string, ...keywords: string[]): Promise<void> {
  const { stderr, stdout, ending, engine } = await runLines(lines);
  assertEquals([stdout, ending], ["", { code: 2 }]);
  assertMatch(stderr, /^Error: .*\n$/);
  for (const keyword of keywords) assertStringIncludes(stderr, keyword);
  assertEquals(engine.loaded, undefined);
}

Deno.test("generate --jsonl prints a line for each prompt", async () => {
  const { stdout, ending } = await runLines('{"prompt": "a"}\n\n{"prompt": "b"}\n');
  const line = '{"text":"Hello world","ids":[72,87],"finish":"stop"}\n';
  assertEquals([stdout, ending], [line + line, { code: 0 }]);
});

Deno.test("generate --jsonl encodes prompts as generate does", async () => {
  assertEquals((await runLines('{"prompt": "a"}', ["--chat"])).engine.prompts, ["<user>a<assistant>"]);
});

Deno.test("generate --jsonl gives the fields of a line to its request", async () => {
  const fields =
    '"max_tokens": 3, "temperature": 0.5, "top_k": 4, "top_p": 0.9, "min_p": 0.1, "seed": 5, "stop": "END"';
  const { engine } = await runLines(`{"prompt": "a", ${fields}}`);
  const { maxTokens, temperature, topK, topP, minP, seed, stop } = engine.requests[0]!.options!;
  assertEquals({ maxTokens, temperature, topK, topP }, { maxTokens: 3, temperature: 0.5, topK: 4, topP: 0.9 });
  assertEquals({ minP, seed, stop }, { minP: 0.1, seed: 5, stop: ["END"] });
});

for (const [flags, expected] of [[["--parallel", "4"], 4], [[], undefined]] as const) {
  Deno.test(`generate --jsonl ${flags.join(" ")} runs ${expected ?? "as many as the engine chooses"}`, async () => {
    const { engine } = await runLines('{"prompt": "a"}', [...flags]);
    assertEquals(engine.batchOptions?.parallel, expected);
  });
}

Deno.test("generate --jsonl takes what a line leaves out from the flags", async () => {
  const { engine } = await runLines('{"prompt": "a", "seed": 5}', ["-n", "9", "--seed", "1"]);
  const { maxTokens, seed } = engine.requests[0]!.options!;
  assertEquals({ maxTokens, seed }, { maxTokens: 9, seed: 5 });
});

const interleaved: BatchPiece[] = [
  { index: 1, id: 1, text: "second", finish: "stop" },
  { index: 0, id: 2, text: "fi" },
  { index: 2, id: 3, text: "third", finish: "length" },
  { index: 0, id: 4, text: "rst", finish: "stop" },
];

Deno.test("generate --jsonl prints the lines in the order of the prompts", async () => {
  const { stdout } = await runLines(
    '{"prompt": "a"}\n'.repeat(3),
    [],
    ({ engine }) => engine.batchPieces = interleaved,
  );
  const texts = stdout.trim().split("\n").map((line) => JSON.parse(line).text);
  assertEquals(texts, ["first", "second", "third"]);
});

Deno.test("generate --jsonl prints a line as soon as all earlier ones are done", async () => {
  const counts: number[] = [];
  await runLines('{"prompt": "a"}\n'.repeat(4), [], (world) => {
    world.engine.batchPieces = [...interleaved, { index: 3, id: 5, text: "", finish: "stop" }];
    world.engine.beforePiece = () => counts.push(world.stdout.text.split("\n").length - 1);
  });
  assertEquals(counts, [0, 0, 0, 0, 3]);
});

Deno.test("generate --jsonl prints no line for a prompt that an abort kept from starting", async () => {
  const { stdout, ending } = await runLines('{"prompt": "a"}\n'.repeat(3), [], (world) => {
    world.engine.beforePiece = (index) => index === 2 && world.signal("SIGTERM");
  });
  assertEquals([stdout.split("\n").length - 1, ending], [1, { signal: "SIGTERM" }]);
});

Deno.test("generate --jsonl --verbose ends with the number of prompts", async () => {
  assertMatch((await runLines('{"prompt": "a"}\n'.repeat(3), ["--verbose"])).stderr, /\nbatch +3 prompts\n$/);
});

const bad: [name: string, line: string, problem: string][] = [
  ["an array", "[1]", "[1]"],
  ["a prompt that is no string", '{"prompt": 5}', '"prompt" must be a string'],
  ["a line without a prompt", "{}", '"prompt" must be a string'],
  ["an empty prompt", '{"prompt": " "}', '"prompt" is empty'],
  ["an unknown field", '{"prompt": "a", "max_token": 5}', 'unknown field "max_token", did you mean "max_tokens"?'],
  [
    "a number out of range",
    '{"prompt": "a", "top_p": 2}',
    "top_p 2",
  ],
  ["a number that is text", '{"prompt": "a", "seed": "1"}', '"seed" must be a number'],
  [
    "an empty stop string",
    '{"prompt": "a", "stop": [""]}',
    '"stop" must be',
  ],
];

for (const [name, line, problem] of bad) {
  Deno.test(`generate --jsonl refuses ${name} and runs nothing`, () =>
    assertRefused(`{"prompt": "a"}\n${line}\n`, "FILE:2: ", problem));
}

Deno.test("generate --jsonl refuses a line that is not JSON", async () => {
  const { stderr, ending } = await runLines('{"prompt": "a"}\n{"prompt"\n');
  assertMatch(stderr, /^Error: FILE:2: not JSON: /);
  assertEquals(ending, { code: 2 });
});

Deno.test("generate --jsonl refuses a file without prompts", async () => {
  await assertRefused("\n\n", "no prompts");
});

Deno.test("generate --jsonl names the line whose prompt is longer than the context", async () => {
  const { stderr, stdout, ending } = await runLines(`{"prompt": "a"}\n{"prompt": "${"x".repeat(1000)}"}`);
  assertMatch(stderr, /^Error: Prompt of FILE:2 is longer than the context: 1,001 tokens, limit 1,000, over by 1/);
  assertEquals([stdout, ending], ["", { code: 4 }]);
});

const excluded: [string[], string][] = [
  [["-p", "a"], "--prompt"],
  [["-f", "a"], "--file"],
  [["--json"], "--json"],
  [["--no-stdin"], "--no-stdin"],
  [["hello"], 'the prompt "hello"'],
];

for (const [args, name] of excluded) {
  Deno.test(`generate --jsonl excludes ${name}`, async () => {
    const { stderr, ending } = await runStream("", args);
    assertEquals([stderr, ending], [`Error: --jsonl - and ${name} exclude each other\n`, { code: 2 }]);
  });
}

Deno.test("generate --jsonl repeats the fields of the user's own, with all digits of numbers", async () => {
  const own = '"id":"a-1","n":12345678901234567890,"x":1.10,"nested":{"k":[null,true,1e400]},"__proto__":7,"topic":"t"';
  const { stdout, ending } = await runLines(`{${own},"prompt":"a"}`);
  assertEquals(stdout, `{${own},"text":"Hello world","ids":[72,87],"finish":"stop"}\n`);
  assertEquals(ending, { code: 0 });
});

for (
  const [field, meant] of [["max_token", "max_tokens"], ["maxTokens", "max_tokens"], ["Seed", "seed"], [
    "temprature",
    "temperature",
  ], ["top-k", "top_k"]]
) {
  Deno.test(`generate --jsonl takes "${field}" for a misspelt setting and names its line`, async () => {
    await assertRefused(
      `{"prompt":"a"}\n{"prompt":"a","${field}":1}`,
      `FILE:2: unknown field "${field}", did you mean "${meant}"?`,
    );
  });
}

for (const field of ["text", "ids", "finish", "error"]) {
  Deno.test(`generate --jsonl refuses a field of the user's own that is called "${field}"`, async () => {
    const { stderr, ending } = await runLines(`{"prompt":"a","${field}":1}`);
    assertMatch(stderr, /^Error: FILE:1: the field .*rename it\n$/);
    assertEquals(ending, { code: 2 });
  });
}

Deno.test("generate --jsonl draws every line with a seed of its own", async () => {
  const { engine } = await runLines('{"prompt":"a"}\n'.repeat(3) + '{"prompt":"a","seed":5}', ["--seed", "4294967294"]);
  assertEquals(engine.requests.map(({ options }) => options?.seed), [4294967294, 4294967295, 0, 5]);
});

Deno.test("generate --jsonl leaves seeds to chance where none is given", async () => {
  const { engine } = await runLines('{"prompt":"a"}');
  assertEquals(engine.requests[0]!.options?.seed, undefined);
});

Deno.test("generate --jsonl names the lines whose logits are not finite, prints all, and ends with 8", async () => {
  const { stdout, stderr, ending } = await runLines('{"prompt":"a"}\n\n{"id":1,"prompt":"b"}', [], ({ engine }) => {
    engine.batchPieces = [
      { index: 1, id: -1, text: "", finish: "numeric", error: "The model gave NaN" },
      { index: 0, id: 1, text: "good", finish: "stop" },
    ];
  });
  assertEquals(
    stdout,
    '{"text":"good","ids":[1],"finish":"stop"}\n{"id":1,"text":"","ids":[],"finish":"numeric","error":"The model gave NaN"}\n',
  );
  assertMatch(
    stderr,
    /^Warning: FILE:3: The model gave NaN\nError: 1 of 2 prompts gave logits that are not finite.*\n$/,
  );
  assertEquals(ending, { code: 8 });
});

Deno.test("generate --jsonl names the line of a prompt without tokens", async () => {
  const { stderr, ending } = await runLines('{"prompt":"a"}\n{"prompt":"b"}', ["--raw"], ({ engine }) => {
    engine.tokenizer = { ...engine.tokenizer, encode: (text) => text === "b" ? [] : [1] };
  });
  assertMatch(stderr, /^Error: Prompt of FILE:2 has no tokens/);
  assertEquals(ending, { code: 2 });
});

const UNORDERED = ["second", "third", "first"];

Deno.test("generate --jsonl - prints each line when its answer is done", async () => {
  const { stdout } = await runStream(
    '{"prompt": "a"}\n'.repeat(3),
    [],
    ({ engine }) => engine.batchPieces = interleaved,
  );
  assertEquals(stdout.trim().split("\n").map((line) => JSON.parse(line).text), UNORDERED);
});

Deno.test("generate --jsonl - --ordered prints the lines in the order of the prompts", async () => {
  const { stdout } = await runStream(
    '{"prompt": "a"}\n'.repeat(3),
    ["--ordered"],
    ({ engine }) => engine.batchPieces = interleaved,
  );
  assertEquals(stdout.trim().split("\n").map((line) => JSON.parse(line).text), UNORDERED.toSorted());
});

Deno.test("generate --jsonl - refuses a line that is invalid, answers the others and ends with 2", async () => {
  const { stdout, stderr, ending, engine } = await runStream('{"prompt": "a"}\n{"id":1,"prompt":7}\n\n{"prompt":"b"}');
  const lines = stdout.trim().split("\n").map((line) => JSON.parse(line));
  const refused = lines.find(({ finish }) => finish === "refused");
  assertEquals({ ...refused, error: "" }, { id: 1, text: "", ids: [], finish: "refused", error: "" });
  assertMatch(refused.error, /^stdin:2: "prompt" must be a string/);
  assertEquals([lines.length, engine.prompts, ending], [3, ["<s>a", "<s>b"], { code: 2 }]);
  assertMatch(stderr, /^Error: 1 of 3 prompts .*refused.*\n$/);
});

Deno.test("generate --jsonl - refuses a line that is not JSON", async () => {
  const { stdout, ending } = await runStream('{"prompt"\n{"prompt":"b"}');
  assertMatch(stdout, /"finish":"refused","error":"stdin:1: not JSON/);
  assertEquals(ending, { code: 2 });
});

Deno.test("generate --jsonl - refuses a prompt that is longer than the context and ends with 4", async () => {
  const { stdout, ending, engine } = await runStream(`{"id":"x","prompt":"${"x".repeat(1000)}"}\n{"prompt":"b"}`);
  assertMatch(stdout, /^\{"id":"x",.*"finish":"refused","error":"Prompt of stdin:1 is longer/);
  assertEquals([engine.prompts, ending], [["<s>b"], { code: 4 }]);
});

Deno.test("generate --jsonl - refuses a line that is not UTF-8", async () => {
  const bytes = new TextEncoder().encode('{"prompt":"b?"}\n{"prompt":"a"}\n');
  bytes[bytes.indexOf(63)] = 0xff;
  const { stdout, engine } = await runStream(bytes);
  assertMatch(stdout, /"finish":"refused","error":"stdin:1 /);
  assertEquals(engine.prompts, ["<s>a"]);
});

Deno.test("generate --jsonl - joins a line that arrives in pieces", async () => {
  const { engine } = await runGenerate(["--jsonl", "-"], (world) => {
    const pieces = ['{"prom', 'pt": "a"}', '\n{"prompt": "b"}\n'];
    world.stdin = {
      isTerminal: () => false,
      read: (buffer) => {
        const piece = pieces.shift();
        return Promise.resolve(piece === undefined ? null : new TextEncoder().encodeInto(piece, buffer).written);
      },
    };
  });
  assertEquals(engine.prompts, ["<s>a", "<s>b"]);
});

Deno.test("generate --jsonl - counts lines with the seed", async () => {
  const { engine } = await runStream('{"prompt":"a"}\n\n{"prompt":7}\n{"prompt":"b"}', ["--seed", "5"]);
  assertEquals(engine.requests.map(({ options }) => options?.seed), [5, 7]);
});

Deno.test("generate --jsonl - refuses input without prompts", async () => {
  const { stderr, ending } = await runStream("\n\n");
  assertStringIncludes(stderr, "no prompts");
  assertEquals(ending, { code: 2 });
});

Deno.test("generate --jsonl passes --verify to the engine and prints what it found about each prompt", async () => {
  const verification = {
    steps: 3,
    agreed: 2,
    meanKl: 0.5,
    maxKl: 1,
    firstDifference: 2,
    skipped: 0,
    overLimit: 0,
    denseSteps: 0,
  };
  const { stdout } = await runLines('{"prompt": "a"}', ["--verify"], ({ engine }) => {
    engine.batchPieces = [{ index: 0, id: 1, text: "x", finish: "stop", verification }];
  });
  assertEquals(JSON.parse(stdout).verification, verification);
});

for (const flags of [["--ordered"], ["--parallel", "4"]]) {
  Deno.test(`generate ${flags[0]} is refused without --jsonl`, async () => {
    const { stderr, ending } = await runGenerate([...flags, "hi"]);
    assertStringIncludes(stderr, "--jsonl");
    assertEquals(ending, { code: 2 });
  });
}
