/** Short prompts that are read in one chunk: which ones, and that each gives what it gives alone. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Engine, EngineOptions } from "../../engine/engine.ts";
import { jointGroups, Prefill } from "../../engine/prefill.ts";
import { Request } from "../../engine/request.ts";
import { Random } from "../../engine/sample/random.ts";
import type { Session } from "../../engine/session.ts";
import type { PrefillProgress, SparseOptions } from "../../engine/types.ts";
import { assertNumbersClose, assertSameBits } from "../support/compare.ts";
import { DEVICE_KIND, HAS_TWO_DEVICES } from "../support/device.ts";
import {
  collect,
  collectBatch,
  loadFixture,
  loadFolder,
  ModelCopy,
  type Outcome,
  promptIds,
} from "../support/fixture_model.ts";
import { TempFolder } from "../support/temp_folder.ts";

const MODEL = "llama-f32";
const onCpu = DEVICE_KIND === "cpu" ? Deno.test : Deno.test.ignore;

/** Prompts of these lengths that begin differently. */
function differentPrompts(lengths: readonly number[]): number[][] {
  const random = new Random(5);
  return lengths.map((length, first) => [
    3 + first,
    ...Array.from({ length: length - 1 }, () => 3 + Math.floor(random.nextFloat() * 200)),
  ]);
}

function openSession(engine: Engine, sparse: SparseOptions = {}): Session {
  return engine.openSession(engine.policy(sparse), { totalTokens: 2048, longestTokens: 640, maxSequences: 8 });
}

/** Bits that depend on all that was computed of each prompt: its last hidden states, and its last keys in the last layer. */
async function readPrompts(
  engine: Engine,
  groups: readonly (readonly number[][])[],
): Promise<Float32Array<ArrayBuffer>[]> {
  using session = openSession(engine);
  const { pool, loaded: { model } } = session;
  using prefill = new Prefill(model, pool);
  const numbers: Float32Array<ArrayBuffer>[] = [];
  for (const prompts of groups) {
    const parts = prompts.map((ids) => ({ sequence: session.openSequence(), ids }));
    const hidden = await prefill.together(parts, session.policy, {});
    numbers.push(...parts.map((_, row) => hidden.rows(row, 1).readFloats()));
    for (const { sequence } of parts) {
      numbers.push(pool.cache.readPage(engine.config.numLayers - 1, sequence.pages.at(-1) ?? -1, "keys"));
    }
  }
  return numbers;
}

Deno.test("prompts on a GPU are read together where products round all of their tokens alike", () => {
  assertEquals(jointGroups("cuda", [20, 44]), [[0, 1]]);
  assertEquals(jointGroups("cuda", [20, 44, 60, 17]), [[0, 1, 2], [3]]);
  assertEquals(jointGroups("cuda", [64, 64, 64, 65]), [[0, 1, 2, 3]]);
  assertEquals(jointGroups("cuda", [17, 130]), [[0], [1]]);
  assertEquals(jointGroups("cuda", [20, 300]), [[0, 1]]);
  assertEquals(jointGroups("cuda", [2048]), [[0]]);
});

Deno.test("prompts of up to 256 tokens are read together on the CPU", () => {
  assertEquals(jointGroups("cpu", [17, 100, 139]), [[0, 1, 2]]);
  assertEquals(jointGroups("cpu", [300]), [[0]]);
});

const KINDS: readonly [model: string, options: EngineOptions][] = [
  [MODEL, {}],
  [MODEL, { weights: "q8_0" }],
  ["qwen2-yarn-bf16", {}],
  ["mistral-sliding-bf16", {}],
];
for (const [model, options] of KINDS) {
  // A GPU chooses the product by the number of tokens.
  onCpu(
    `Prompts of 17 to 140 tokens get the same bits together and alone (${model} ${JSON.stringify(options)})`,
    async () => {
      await using engine = await loadFixture(model, options);
      const [first, second, third] = differentPrompts([17, 99, 140]);
      assert(first && second && third);
      const together = await readPrompts(engine, [[first, second, third]]);
      const alone = await readPrompts(engine, [[first], [second], [third]]);
      const order = [0, 2, 4, 1, 3, 5]; // hidden states, then keys
      order.forEach((at, index) => assertSameBits(together[index]!, alone[at]!));
    },
  );
}

(HAS_TWO_DEVICES ? Deno.test : Deno.test.ignore)(
  "Two devices compute the halves of a chunk of several prompts",
  async () => {
    const name = "llama-linear-rope-f16";
    await using one = await loadFixture(name);
    await using pair = await loadFixture(name, { devices: [0, 1] });
    const prompts = differentPrompts([40, 150, 200, 122]);
    const [wanted, found] = [await readPrompts(one, [prompts]), await readPrompts(pair, [prompts])];
    for (const row of prompts.keys()) {
      assertNumbersClose(found[row]!, wanted[row]!, [1, one.config.hiddenSize], { relative: 0.05 });
    }
  },
);

/** Runs requests in a session and notes the tokens of every chunk. */
async function chunksOf(
  session: Session,
  requests: readonly Request[] | AsyncIterable<Request>,
  onPiece: () => void = () => {},
): Promise<number[]> {
  const { model } = session.loaded;
  const prefill = model.prefill.bind(model);
  const chunks: number[] = [];
  model.prefill = (pool, policy, chunk, hooks) => {
    chunks.push(chunk.ids.shape[0] ?? 0);
    return prefill(pool, policy, chunk, hooks);
  };
  for await (const _piece of session.generate(requests)) onPiece();
  return chunks;
}

function requestsFor(engine: Engine, prompts: readonly number[][], maxTokens = 2): Request[] {
  const limits = { eosTokenIds: [], maxContext: engine.config.maxContext };
  return prompts.map((ids, index) => new Request(index, ids, { maxTokens }, engine.tokenizer.stream(), limits));
}

onCpu("A chunk has the prompts that fit in 256 tokens, and longer and shorter ones are read alone", async () => {
  await using engine = await loadFixture(MODEL);
  using session = openSession(engine);
  const prompts = differentPrompts([100, 100, 100, 16, 20, 300, 30]);
  assertEquals(await chunksOf(session, requestsFor(engine, prompts)), [200, 100, 16, 20, 300, 30]);
});

onCpu("While an answer waits, prompts that arrive are read up to 128 tokens at once", async () => {
  await using engine = await loadFixture(MODEL);
  using session = openSession(engine);
  const [running, ...arriving] = requestsFor(engine, differentPrompts([20, 40, 40, 40, 40, 40, 40]), 40);
  assert(running);
  const { promise: hasPiece, resolve: onPiece } = Promise.withResolvers<void>();
  async function* source(): AsyncGenerator<Request> {
    yield running!;
    await hasPiece;
    yield* arriving;
  }
  const chunks = await chunksOf(session, source(), onPiece);
  assertEquals(chunks.reduce((sum, tokens) => sum + tokens), 260);
  assert(chunks.every((tokens) => tokens <= 128), chunks.join(", "));
  assert(chunks.length < 7, chunks.join(", "));
});

Deno.test("A prompt that begins like another one of its chunk waits, and what they have in common is read once", async () => {
  await using engine = await loadFixture(MODEL);
  using session = openSession(engine);
  const [common, one, other, third] = differentPrompts([64, 20, 21, 40]);
  assert(common && one && other && third);
  const prompts = [[...common, ...one], [...common, ...other], third];
  assertEquals(await chunksOf(session, requestsFor(engine, prompts)), [84 + 40, 21]);
});

Deno.test("Requests read together give what each gives alone, with tiles that select and without", async () => {
  const document = promptIds(MODEL, 384);
  const prompts = differentPrompts([30, 50, 41]).map((ids) => [...document, ...ids]);
  for (const sparse of [{}, { prefill: "on", prefillBudgetTokens: 64, mode: "off" }] as const) {
    await using engine = await loadFixture(MODEL);
    await collect(engine.generate(document, { maxTokens: 1, sparse }));
    const batch = prompts.map((prompt) => ({ prompt, options: { maxTokens: 6 } }));
    const together = await collectBatch(engine.generateBatch(batch, { sparse }), batch.length);
    for (const [index, prompt] of prompts.entries()) {
      await using fresh = await loadFixture(MODEL);
      assertEquals(together[index], await collect(fresh.generate(prompt, { maxTokens: 6, sparse })));
    }
    assertEquals(engine.stats.promptPagesDense > 0, "prefill" in sparse);
  }
});

Deno.test("Prompts that are read together are saved, and loaded by another engine", async () => {
  using folder = new TempFolder();
  const batch = differentPrompts([100, 110]).map((prompt) => ({ prompt, options: { maxTokens: 5 } }));
  const outcomes: Outcome[][] = [];
  const loaded: (number | undefined)[] = [];
  for (let round = 0; round < 2; round++) {
    await using engine = await loadFixture(MODEL, { promptCache: { folder: folder.path } });
    outcomes.push(await collectBatch(engine.generateBatch(batch), batch.length));
    loaded.push(engine.stats.promptCache?.loadedTokens);
  }
  assertEquals(outcomes[1], outcomes[0]);
  assertEquals(loaded, [0, 128]);
});

Deno.test("A prompt whose logits are not finite ends alone, and names its own tokens and layer", async () => {
  const prompts = differentPrompts([30, 40, 50]);
  const poison = 250;
  prompts[1]!.push(poison);
  using copy = await ModelCopy.of(MODEL).poke("model.embed_tokens.weight", 64 * poison, NaN);
  await using engine = await loadFolder(copy.folder);
  const ends: string[] = [];
  const batch = prompts.map((prompt) => ({ prompt, options: { maxTokens: 3 } }));
  for await (const { index, finish, error } of engine.generateBatch(batch)) {
    if (finish) ends[index] = finish;
    if (error) assertMatch(error, /prompt of 41 tokens, first in layer 0/);
  }
  assertEquals(ends, ["length", "numeric", "length"]);
  assertEquals([engine.stats.promptTokens, engine.stats.prefillTokens], [80, 80]);
});

Deno.test("Progress names every prompt of a chunk with its own tokens", async () => {
  await using engine = await loadFixture(MODEL);
  const seen: Pick<PrefillProgress, "doneTokens" | "totalTokens">[] = [];
  const onPrefill = ({ doneTokens, totalTokens }: PrefillProgress, index: number): void => {
    seen[index] = { doneTokens, totalTokens };
  };
  const batch = differentPrompts([30, 40, 50]).map((prompt) => ({ prompt, options: { maxTokens: 1 } }));
  for await (const _piece of engine.generateBatch(batch, { onPrefill }));
  assertEquals(seen, [30, 40, 50].map((tokens) => ({ doneTokens: tokens, totalTokens: tokens })));
});

Deno.test("The time of prompts that are read together counts once", async () => {
  await using engine = await loadFixture(MODEL);
  const batch = differentPrompts(Array(8).fill(30)).map((prompt) => ({ prompt, options: { maxTokens: 1 } }));
  const started = performance.now();
  for await (const _piece of engine.generateBatch(batch));
  const seconds = (performance.now() - started) / 1000;
  assert(engine.stats.prefillSeconds <= seconds, `${engine.stats.prefillSeconds} s of ${seconds} s`);
});

Deno.test("An abort while prompts are read together ends each of them once, and frees their pages", async () => {
  await using engine = await loadFixture(MODEL);
  using session = openSession(engine);
  const { model } = session.loaded;
  const prefill = model.prefill.bind(model);
  const controller = new AbortController();
  model.prefill = (...args) => {
    controller.abort();
    return prefill(...args);
  };
  const ends: [number, string][] = [];
  const requests = requestsFor(engine, differentPrompts([30, 40, 50]));
  for await (const { index, finish } of session.generate(requests, session.policy, { signal: controller.signal })) {
    if (finish) ends.push([index, finish]);
  }
  assertEquals(ends, [[0, "aborted"], [1, "aborted"], [2, "aborted"]]);
  assertEquals(session.pool.allocator.numUsed, 0);
});
