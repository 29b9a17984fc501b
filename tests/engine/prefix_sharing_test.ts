/** Prompts that begin like earlier ones: only what is new is read, and answers are those of a fresh engine. */
import { assert, assertEquals } from "@std/assert";
import type { Engine } from "../../engine/engine.ts";
import type { Sequence } from "../../engine/pages/sequence.ts";
import { Request } from "../../engine/request.ts";
import { Random } from "../../engine/sample/random.ts";
import type { Session } from "../../engine/session.ts";
import type { GenerateOptions } from "../../engine/types.ts";
import { assertSameBits } from "../support/compare.ts";
import { DEVICE_KIND } from "../support/device.ts";
import { collect, collectBatch, loadFixture, type Outcome, promptIds } from "../support/fixture_model.ts";

const MODEL = "llama-f32";
const SMALL = { mode: "on", budgetTokens: 24 } as const;
/** Whole pages, and whole groups of pages, which a GPU shares. */
const DOCUMENT = promptIds(MODEL, 192);

function about(question: number): number[] {
  return [...DOCUMENT, ...Array.from({ length: 20 }, (_, index) => 3 + (question * 31 + index * 7) % 200)];
}

async function fresh(prompt: readonly number[], options: GenerateOptions): Promise<Outcome> {
  await using engine = await loadFixture(MODEL);
  return await collect(engine.generate(prompt, options));
}

for (const [label, sparse] of [["dense", { mode: "off" }], ["sparse", SMALL]] as const) {
  Deno.test(`A ${label} generation that begins like an earlier one reads only what is new and gives what a fresh engine gives`, async () => {
    await using engine = await loadFixture(MODEL);
    const options = { maxTokens: 8, sparse };
    await collect(engine.generate(about(1), options));
    assertEquals(await collect(engine.generate(about(2), options)), await fresh(about(2), options));
    const { promptTokens, reusedTokens, prefillTokens } = engine.stats;
    assertEquals([promptTokens, reusedTokens, prefillTokens], [212, 192, 20]);
  });
}

Deno.test("A longer prompt that needs a larger cache keeps the pages of the shorter one", async () => {
  await using engine = await loadFixture(MODEL);
  const options = { maxTokens: 8, sparse: SMALL };
  await collect(engine.generate(DOCUMENT, options));
  const longer = [...about(1), ...promptIds(MODEL, 300)];
  assertEquals(await collect(engine.generate(longer, options)), await fresh(longer, options));
  assertEquals(engine.stats.reusedTokens, DOCUMENT.length);
});

Deno.test("Requests of a batch about one document read it once and hold it once", async () => {
  const questions = [about(1), promptIds(MODEL, 30).slice(7), about(2), about(3)];
  await using engine = await loadFixture(MODEL);
  const batch = questions.map((prompt) => ({ prompt, options: { maxTokens: 5 } }));
  const outcomes = await collectBatch(engine.generateBatch(batch), batch.length);
  const { reusedTokens, peakKvBytes } = engine.stats;
  assertEquals(reusedTokens, 2 * DOCUMENT.length);
  for (const [index, prompt] of questions.entries()) {
    assertEquals(outcomes[index], await fresh(prompt, { maxTokens: 5 }));
  }
  const { numLayers, numKvHeads, headDim } = engine.config;
  const tokenBytes = 2 * 4 * numLayers * numKvHeads * headDim;
  const ownTokens = DEVICE_KIND === "cuda" ? 64 : 32; // of a request: a group of pages, or its 20 tokens and answer in whole pages
  const limit = (DOCUMENT.length + questions.length * ownTokens) * tokenBytes;
  assert(peakKvBytes <= limit, `${peakKvBytes} bytes, limit ${limit}`);
});

const SAME_BITS =
  "A prompt whose last chunk would be short gets the same bits as one that is read from a later page on";
// A GPU multiplies chunks of other lengths in another order.
Deno.test({ name: SAME_BITS, ignore: DEVICE_KIND === "cuda" }, async () => {
  await using engine = await loadFixture(MODEL);
  using session = engine.openSession(engine.policy(), { totalTokens: 1200, longestTokens: 520, maxSequences: 2 });
  const prompt = promptIds(MODEL, 514);
  const [whole, continued] = [session.openSequence(), session.openSequence()];
  await session.prefill(whole, prompt);
  await session.prefill(continued, prompt.slice(0, 480));
  await session.prefill(continued, prompt.slice(480));
  const lastKeys = ({ pages }: Sequence): Float32Array<ArrayBuffer> =>
    session.pool.cache.readPage(1, pages.at(-1) ?? -1, "keys");
  assertSameBits(lastKeys(whole), lastKeys(continued));
});

/** A sequence with the document, and one that begins with its pages. */
async function sharedDocument(session: Session): Promise<{ first: Sequence; second: Sequence }> {
  const first = session.openSequence();
  await session.prefill(first, DOCUMENT);
  session.pool.prefixes.add(DOCUMENT, first.pages, DOCUMENT.length);
  return { first, second: session.pool.openSequence([...DOCUMENT, ...promptIds(MODEL, 20)]) };
}

Deno.test("Truncating a sequence that shares its pages leaves the others' keys, values and statistics alone", async () => {
  await using engine = await loadFixture(MODEL);
  using session = engine.openSession(engine.policy(SMALL), { totalTokens: 400, longestTokens: 200, maxSequences: 2 });
  const { first, second } = await sharedDocument(session);
  const read = (): Float32Array<ArrayBuffer>[] =>
    first.pages.flatMap((page) =>
      (["keys", "values", "mean", "std"] as const).map((field) => session.pool.cache.readPage(1, page, field))
    );
  const before = read();
  session.truncate(second, 101);
  await session.prefill(second, promptIds(MODEL, 60).slice(20));
  read().forEach((numbers, index) => assertSameBits(numbers, before[index]!));
});

Deno.test("A sequence cut inside shared pages continues as one that was never shared", async () => {
  await using engine = await loadFixture(MODEL);
  using session = engine.openSession(engine.policy(SMALL), { totalTokens: 800, longestTokens: 200, maxSequences: 2 });
  const { second: shared } = await sharedDocument(session);
  session.truncate(shared, 101);
  const alone = session.openSequence();
  await session.prefill(alone, DOCUMENT);
  session.truncate(alone, 101);
  for (const id of [5, 9, 17]) {
    const wanted = session.step([alone], [id]).logits.readFloats();
    assertSameBits(session.step([shared], [id]).logits.readFloats(), wanted);
  }
});

/** Runs batches of random requests that begin with parts of the document; the consumer leaves some of them half-way. */
async function soak(engine: Engine, session: Session, rounds: number): Promise<void> {
  const random = new Random(11);
  const below = (limit: number): number => Math.floor(random.nextFloat() * limit);
  const limits = { eosTokenIds: [], maxContext: engine.config.maxContext };
  for (let round = 0; round < rounds; round++) {
    const requests = Array.from({ length: 1 + below(5) }, (_, index) => {
      const tail = Array.from({ length: 1 + below(40) }, () => 3 + below(200));
      const prompt = [...DOCUMENT.slice(0, below(DOCUMENT.length)), ...tail];
      return new Request(index, prompt, { maxTokens: 1 + below(6) }, engine.tokenizer.stream(), limits);
    });
    let left = below(4) === 0 ? below(6) : Infinity;
    for await (const _piece of session.generate(requests)) if (left-- === 0) break;
  }
}

Deno.test("No page is lost in 120 batches with shared beginnings, of which some end early", async () => {
  await using engine = await loadFixture(MODEL);
  using session = engine.openSession(engine.policy(SMALL), { totalTokens: 700, longestTokens: 240, maxSequences: 4 });
  await soak(engine, session, 120);
  const { allocator, shape: { numPages, pageSize } } = session.pool;
  assertEquals([allocator.numUsed, allocator.numFree], [0, numPages]);
  assertEquals(session.openSequence().extend(numPages * pageSize).length, numPages * pageSize);
});
