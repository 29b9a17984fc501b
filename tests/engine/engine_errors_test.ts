/** What an engine refuses, how it ends early, and that it goes on afterwards. */
import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import type { Engine } from "../../engine/engine.ts";
import { type ErrorKind, PagesiftError } from "../../engine/errors.ts";
import { MIN_CHUNK_TOKENS } from "../../engine/pages/prefix_tree.ts";
import type { GenerateOptions, Piece } from "../../engine/types.ts";
import { collect, loadedOf, loadFixture, loadFolder, ModelCopy, promptIds } from "../support/fixture_model.ts";

const MODEL = "llama-f32";
const PROMPT = promptIds(MODEL);

/** The kind and message of the error that a promise ends with. */
async function refusal(work: Promise<unknown>): Promise<[kind: string, message: string]> {
  const { kind, message } = await assertRejects(() => work, PagesiftError);
  return [kind, message];
}

async function assertWorks(engine: Engine): Promise<void> {
  assertEquals((await collect(engine.generate(PROMPT, { maxTokens: 3 }))).ids, [258, 364, 30]);
}

function testRefusal(
  what: string,
  prompt: readonly number[],
  options: GenerateOptions,
  [kind, keyword]: [ErrorKind, string],
): void {
  Deno.test(`Engine.generate refuses ${what} and works afterwards`, async () => {
    await using engine = await loadFixture(MODEL, { maxContext: 1000 });
    const [found, message] = await refusal(collect(engine.generate(prompt, options)));
    assertEquals(found, kind);
    assertStringIncludes(message, keyword);
    await assertWorks(engine);
  });
}

testRefusal("a prompt longer than the context with the counts", promptIds(MODEL, 2234), {}, [
  "context",
  "2,234 tokens, limit 1,000, over by 1,234",
]);
testRefusal("an empty prompt", [], {}, ["usage", "no tokens"]);
testRefusal("an id past the vocabulary", [1, 700], {}, ["usage", "Token id 700"]);
testRefusal("a negative id", [-1], {}, ["usage", "Token id -1"]);
testRefusal("half an id", [1.5], {}, ["usage", "Token id 1.5"]);
testRefusal("no tokens to generate", [1], { maxTokens: 0 }, ["usage", "maxTokens"]);
testRefusal("a broken budget", [1], { sparse: { budgetTokens: 100 } }, [
  "usage",
  "96 or 104",
]);
testRefusal("an empty stop string", [1], { stop: [""] }, [
  "usage",
  "stop string",
]);
testRefusal("a negative temperature", [1], { temperature: -1 }, [
  "usage",
  "temperature",
]);

for (const maxContext of [4097, 0, 1.5]) {
  Deno.test(`Engine.load refuses a context of ${maxContext} tokens`, async () => {
    const [kind, message] = await refusal(loadFixture(MODEL, { maxContext }));
    assertEquals(kind, "usage");
    assertStringIncludes(message, "from 1 to 4096");
  });
}

for (const threads of [NaN, 0, -1, 1.5, 1e6]) {
  Deno.test(`Engine.load refuses ${threads} threads before it reads the folder`, async () => {
    const [kind, message] = await refusal(loadFolder("no such folder", { threads }));
    assertEquals(kind, "usage");
    assertStringIncludes(message, "threads");
  });
}

Deno.test("Engine.load refuses a device that it does not know", async () => {
  const [kind] = await refusal(loadFixture(MODEL, { device: "gpu" as "cpu" }));
  assertEquals(kind, "usage");
});

Deno.test("Engine.load refuses sparse options before it reads any weight", async () => {
  const [kind] = await refusal(loadFixture(MODEL, { sparse: { pageSize: 9 } }));
  assertEquals(kind, "usage");
});

Deno.test("Engine.load refuses weights that are shorter than their header says", async () => {
  using copy = ModelCopy.of(MODEL);
  const file = join(copy.folder, "model.safetensors");
  Deno.truncateSync(file, Deno.statSync(file).size - 1000);
  const [kind, message] = await refusal(loadFolder(copy.folder));
  assertEquals(kind, "model");
  assertStringIncludes(message, "model.safetensors");
});

Deno.test("Engine.load ends with the signal's reason", async () => {
  const error = await assertRejects(() => loadFixture(MODEL, { signal: AbortSignal.abort() }));
  assertEquals(error instanceof Error && error.name, "AbortError");
});

Deno.test("Engine refuses a second generation while one runs, and serves on after it", async () => {
  await using engine = await loadFixture(MODEL);
  const first = engine.generate(PROMPT, { maxTokens: 3 });
  await first.next();
  const busy = "The model is busy with another run; wait for it, or load a second engine";
  assertEquals(await refusal(engine.generate(PROMPT).next()), ["usage", busy]);
  assertEquals(await refusal(engine.logits(PROMPT)), ["usage", busy]);
  assertEquals((await collect(first)).ids, [364, 30]);
  await assertWorks(engine);
});

Deno.test("Engine serves on after its consumer left half-way", async () => {
  await using engine = await loadFixture(MODEL);
  for await (const _piece of engine.generate(PROMPT)) break;
  assertEquals([engine.stats.decodeSteps, engine.stats.peakKvBytes > 0], [0, true]);
  await assertWorks(engine);
});

Deno.test("Engine.generate aborted before it began gives a closing piece and no token", async () => {
  await using engine = await loadFixture(MODEL);
  const { ids, text, finish } = await collect(engine.generate(PROMPT, { signal: AbortSignal.abort() }));
  assertEquals([ids, text, finish, engine.stats.finishReason], [[-1], "", "aborted", "aborted"]);
  await assertWorks(engine);
});

Deno.test("Engine.generate aborted during prefill ends with the reason aborted", async () => {
  await using engine = await loadFixture(MODEL);
  const controller = new AbortController();
  const progress: number[] = [];
  const onPrefill: GenerateOptions["onPrefill"] = ({ doneTokens }) => {
    progress.push(doneTokens);
    controller.abort();
  };
  const chunk = loadedOf(engine).model.activations.maxTokens;
  const prompt = promptIds(MODEL, chunk + MIN_CHUNK_TOKENS);
  const { ids, finish } = await collect(engine.generate(prompt, { signal: controller.signal, onPrefill }));
  assertEquals([progress, ids, finish, engine.stats.finishReason], [[chunk], [-1], "aborted", "aborted"]);
  await assertWorks(engine);
});

Deno.test("Engine.generate aborted while it decodes ends with all text so far", async () => {
  await using engine = await loadFixture(MODEL);
  const controller = new AbortController();
  const pieces: Piece[] = [];
  for await (const piece of engine.generate(PROMPT, { signal: controller.signal })) {
    pieces.push(piece);
    if (pieces.length === 4) controller.abort();
  }
  assertEquals(pieces.map(({ id }) => id), [258, 364, 30, 194, -1]);
  assertEquals(pieces.map(({ text }) => text).join(""), engine.tokenizer.decode([258, 364, 30, 194]));
  assertEquals([pieces.at(-1)?.finish, engine.stats.finishReason], ["aborted", "aborted"]);
  await assertWorks(engine);
});

Deno.test("Engine.generate follows an abort that only a turn of the event loop brings", async () => {
  await using engine = await loadFixture(MODEL);
  const { finish } = await collect(engine.generate(PROMPT, { maxTokens: 3800, signal: AbortSignal.timeout(60) }));
  assertEquals(finish, "aborted");
});

Deno.test("Engine throws once disposed, and disposes twice without harm", async () => {
  const engine = await loadFixture(MODEL);
  await collect(engine.generate(PROMPT, { maxTokens: 3 }));
  await engine[Symbol.asyncDispose]();
  await engine[Symbol.asyncDispose]();
  await assertRejects(() => engine.generate(PROMPT).next(), Error, "closed");
  await assertRejects(() => engine.logits(PROMPT), Error, "closed");
  assertEquals(engine.stats.decodeTokens, 2);
});

Deno.test("Engine disposed in the middle of a generation ends that with an error", async () => {
  const engine = await loadFixture(MODEL);
  const pieces = engine.generate(PROMPT);
  await pieces.next();
  await engine[Symbol.asyncDispose]();
  await assertRejects(() => pieces.next(), Error, "closed");
});

const DOWN = "model.layers.1.mlp.down_proj.weight";

for (const temperature of [0, 1]) {
  Deno.test(`Engine.generate names the layer that spoils a prompt at temperature ${temperature}`, async () => {
    using copy = await ModelCopy.of(MODEL).poke(DOWN, 5, NaN);
    await using engine = await loadFolder(copy.folder);
    const [kind, message] = await refusal(collect(engine.generate(PROMPT, { temperature })));
    assertEquals(kind, "numeric");
    assertMatch(message, /not finite in the prompt of 220 tokens, first in layer 1; check the weights/);
  });
}

Deno.test("Engine.generate names the step and the layer that spoil an answer", async () => {
  const answer = [258, 364, 30];
  using copy = ModelCopy.of(MODEL);
  for (const id of answer.slice(2)) await copy.poke("model.embed_tokens.weight", id * 64, NaN);
  await using engine = await loadFolder(copy.folder);
  const prompt = PROMPT.filter((id) => id !== 30);
  const [kind, message] = await refusal(collect(engine.generate(prompt, { maxTokens: 3000 })));
  assertEquals(kind, "numeric");
  assertMatch(message, /not finite at decode step \d+, first in layer 0; check the weights/);
});

Deno.test("Engine.generate names the output projection where all layers are sound", async () => {
  using copy = await ModelCopy.of(MODEL).poke("lm_head.weight", 64 * 400, NaN);
  await using engine = await loadFolder(copy.folder);
  const [, message] = await refusal(collect(engine.generate(PROMPT)));
  assertMatch(message, /in the prompt of 220 tokens, first in the output projection/);
});

Deno.test("Engine.generate never takes an infinite logit for the best one", async () => {
  using copy = await ModelCopy.of(MODEL).poke("model.norm.weight", 3, Infinity);
  await using engine = await loadFolder(copy.folder);
  for (const temperature of [0, 1]) {
    assertEquals((await refusal(collect(engine.generate(PROMPT, { temperature }))))[0], "numeric");
  }
});

Deno.test("Engine serves on after a numeric error", async () => {
  using copy = await ModelCopy.of(MODEL).poke("model.embed_tokens.weight", 64 * 699, NaN);
  await using engine = await loadFolder(copy.folder);
  assert((await refusal(collect(engine.generate([1, 699]))))[1].includes("prompt of 2 tokens"));
  await assertWorks(engine);
});
