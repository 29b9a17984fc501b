/** Runs of one model that meet: who may run, what a truncation leaves, what a failure leaves, and what a cache serves. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import type { Engine } from "../../engine/engine.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { cacheShape, KvPool } from "../../engine/pages/kv_pool.ts";
import { resolvePolicy } from "../../engine/pages/page_policy.ts";
import type { Sequence } from "../../engine/pages/sequence.ts";
import { Request } from "../../engine/request.ts";
import type { Session } from "../../engine/session.ts";
import type { GenerateOptions, GenerateRequest } from "../../engine/types.ts";
import type { Device } from "../../ffi/device.ts";
import { NativeError, Status } from "../../ffi/errors.ts";
import { liveHandles } from "../../ffi/library.ts";
import { ablate } from "../../inspect/ablate.ts";
import { makeReport } from "../../inspect/report.ts";
import { inspectIds } from "../inspect/runs.ts";
import { QualitySession } from "../../bench/quality_session.ts";
import { planQuality } from "../../bench/quality_plan.ts";
import { tinyQuality } from "../bench/tiny.ts";
import { assertSameBits } from "../support/compare.ts";
import {
  collect,
  collectBatch,
  loadedOf,
  loadFixture,
  loadFolder,
  ModelCopy,
  type Outcome,
  promptIds,
} from "../support/fixture_model.ts";

const MODEL = "llama-f32";
const PROMPT = promptIds(MODEL, 60);
const NO_TEXT = { prompt: "", parts: [] };
const SMALL = { mode: "on", budgetTokens: 24 } as const;

function openSession(engine: Engine, tokens: number, maxSequences = 1): Session {
  return engine.openSession(engine.policy(SMALL), { totalTokens: tokens, longestTokens: tokens, maxSequences });
}

async function assertBusy(work: () => unknown): Promise<void> {
  const { kind, message } = await assertRejects(async () => await work(), PagesiftError);
  assertEquals(kind, "usage");
  assertMatch(message, /busy/);
}

Deno.test("A session refuses every kind of run while a generation of the same model is under way", async () => {
  await using engine = await loadFixture(MODEL);
  using session = openSession(engine, 100);
  const sequence = session.openSequence();
  await session.prefill(sequence, PROMPT);
  const wanted = await collect(engine.generate(PROMPT, { maxTokens: 6 }));
  const pieces = engine.generate(PROMPT, { maxTokens: 6 });
  const first = await pieces.next();
  await assertBusy(() => session.step([sequence], [5]));
  await assertBusy(() => session.prefill(sequence, [5]));
  await assertBusy(() => session.replay(session.policy));
  await assertBusy(() => inspectIds(engine, PROMPT, NO_TEXT, { steps: 2, sparse: SMALL }));
  const rest = await collect(pieces);
  assertEquals([first.value?.id, ...rest.ids], wanted.ids);
});

Deno.test("Engine.generate is refused while an inspection runs, and both give what they give alone", async () => {
  await using engine = await loadFixture(MODEL);
  const wanted = await collect(engine.generate(PROMPT, { maxTokens: 5, sparse: SMALL }));
  const inspection = inspectIds(engine, PROMPT, NO_TEXT, { steps: 4, sparse: SMALL });
  await assertBusy(() => engine.generate(PROMPT).next());
  using run = await inspection;
  assertEquals(run.recording.facts.answerIds, wanted.ids);
  assertEquals(await collect(engine.generate(PROMPT, { maxTokens: 5, sparse: SMALL })), wanted);
});

/** Logits of the steps that feed these ids. */
function feed(session: Session, sequence: Sequence, ids: readonly number[]): Float32Array<ArrayBuffer>[] {
  return ids.map((id) => session.step([sequence], [id]).logits.readFloats());
}

for (const length of [40, 44, 8]) {
  Deno.test(`Session.truncate to ${length} tokens gives the logits of a fresh cache, when others take the pages`, async () => {
    await using engine = await loadFixture(MODEL);
    using session = openSession(engine, 200, 2);
    const [first, second] = [session.openSequence(), session.openSequence()];
    await session.prefill(first, PROMPT);
    feed(session, first, [7, 8, 9]);
    session.truncate(first, length);
    await session.prefill(second, promptIds(MODEL, 70).slice(10));
    using fresh = openSession(engine, 200, 2);
    const alone = fresh.openSequence();
    await fresh.prefill(alone, PROMPT);
    fresh.truncate(alone, length);
    const ids = [7, 8, 9, 10, 11, 12, 13, 14, 15];
    const wanted = feed(fresh, alone, ids);
    // The second sequence takes pages between the steps as well.
    feed(session, first, ids).forEach((logits, step) => assertSameBits(logits, wanted[step]!));
  });
}

interface Failing {
  copy: ModelCopy;
  /** Makes the logits NaN wherever it is read. */
  poison: number;
}

async function poisoned(): Promise<Failing> {
  const copy = ModelCopy.of(MODEL);
  await copy.poke("model.embed_tokens.weight", 64 * 699, NaN);
  return { copy, poison: 699 };
}

for (const options of [{}, { temperature: 1, seed: 3 }, { temperature: 1, seed: 3, repeatPenalty: 1.2 }]) {
  Deno.test(`Engine.generateBatch ends only the request whose logits are not finite (${JSON.stringify(options)})`, async () => {
    const { copy, poison } = await poisoned();
    using _copy = copy;
    await using engine = await loadFolder(copy.folder);
    const good = (tokens: number): GenerateRequest => ({
      prompt: promptIds(MODEL, tokens),
      options: { ...options, maxTokens: 12 },
    });
    const bad = { prompt: [1, 5, poison], options: { ...options, maxTokens: 12 } };
    const [first, failed, second] = await collectBatch(engine.generateBatch([good(30), bad, good(50)]), 3);
    assertEquals([failed?.ids, failed?.finish], [[-1], "numeric"]);
    assertMatch(failed?.error ?? "", /not finite in the prompt of 3 tokens, first in layer 0/);
    const alone: (Outcome | undefined)[] = [];
    for (const tokens of [30, 50]) {
      alone.push(await collect(engine.generate(good(tokens).prompt, good(tokens).options)));
    }
    assertEquals([first, second], alone);
  });
}

Deno.test("Engine.generateBatch goes on with the others when a decode step spoils one of them, and names the step", async () => {
  await using sound = await loadFixture(MODEL);
  const prompts = [promptIds(MODEL, 30), promptIds(MODEL, 220), promptIds(MODEL, 50)];
  const wanted: Outcome[] = [];
  for (const prompt of prompts) wanted.push(await collect(sound.generate(prompt, { maxTokens: 10 })));
  // The third token of the second answer, which occurs in no other prompt or answer, is poisoned.
  const poison = wanted[1]!.ids[2]!;
  const others = [0, 2].flatMap((index) => [...prompts[index]!, ...wanted[index]!.ids]);
  assert(!prompts[1]!.includes(poison) && !others.includes(poison), `${poison} occurs elsewhere`);
  using copy = await ModelCopy.of(MODEL).poke("model.embed_tokens.weight", 64 * poison, NaN);
  await using engine = await loadFolder(copy.folder);
  const requests = prompts.map((prompt) => ({ prompt, options: { maxTokens: 10 } }));
  const [first, failed, second] = await collectBatch(engine.generateBatch(requests), 3);
  assertEquals([failed?.ids, failed?.finish], [[...wanted[1]!.ids.slice(0, 3), -1], "numeric"]);
  assertMatch(failed?.error ?? "", /not finite at decode step 3, first in layer 0/);
  assertEquals([first, second], [wanted[0], wanted[2]]);
});

Deno.test("Pages of a request that failed serve the next one without a trace", async () => {
  const { copy, poison } = await poisoned();
  using _copy = copy;
  await using engine = await loadFolder(copy.folder);
  const wanted = await collect(engine.generate(PROMPT, { maxTokens: 9, sparse: SMALL }));
  await assertRejects(
    () => collect(engine.generate([...PROMPT.slice(1), poison], { sparse: SMALL, maxTokens: 9 })),
    PagesiftError,
  );
  assertEquals(await collect(engine.generate(PROMPT, { maxTokens: 9, sparse: SMALL })), wanted);
});

Deno.test("Engine.generate locates the layer that spoils a prompt in a cache that the prompt fills", async () => {
  using copy = await ModelCopy.of(MODEL).poke("model.layers.1.mlp.down_proj.weight", 5, NaN);
  await using engine = await loadFolder(copy.folder);
  const { kind, message } = await assertRejects(
    () => collect(engine.generate(promptIds(MODEL), { maxTokens: 1 })),
    PagesiftError,
  );
  assertEquals(kind, "numeric");
  assertMatch(message, /in the prompt of 220 tokens, first in layer 1/);
});

const REFUSED: [name: string, options: GenerateOptions][] = [
  ["maxTokens NaN", { maxTokens: NaN }],
  ["maxTokens Infinity", { maxTokens: Infinity }],
  ["maxTokens 1.5", { maxTokens: 1.5 }],
  ["temperature NaN", { temperature: NaN }],
  ["topK NaN", { topK: NaN }],
  ["topP NaN", { topP: NaN }],
  ["minP NaN", { minP: NaN }],
  ["repeatPenalty NaN", { repeatPenalty: NaN }],
  ["repeatLastTokens NaN", { repeatLastTokens: NaN }],
  ["seed NaN", { seed: NaN }],
  ["an empty stop string", { stop: [""] }],
  ["budgetTokens NaN", { sparse: { budgetTokens: NaN } }],
  ["lambda NaN", { sparse: { lambda: NaN } }],
];
for (const [name, options] of REFUSED) {
  Deno.test(`Engine.generate refuses ${name} as a usage error before it touches the cache`, async () => {
    await using engine = await loadFixture(MODEL);
    await collect(engine.generate([1, 2], { maxTokens: 2 }));
    const { device } = loadedOf(engine);
    const before = device.describe().allocatedBytes;
    const larger = promptIds(MODEL, 2000); // would need a larger cache
    const { kind } = await assertRejects(() => engine.generate(larger, options).next(), PagesiftError);
    assertEquals([kind, device.describe().allocatedBytes], ["usage", before]);
  });
}

/** From now on the `nth` allocation fails. Returns what undoes it. */
function failAllocation(device: Device, nth: number): Disposable {
  const createBuffer = device.createBuffer.bind(device);
  let count = 0;
  device.createBuffer = (bytes) => {
    if (++count === nth) throw new NativeError(Status.OutOfMemory, "Out of main memory");
    return createBuffer(bytes);
  };
  return {
    [Symbol.dispose]: () => {
      device.createBuffer = createBuffer;
    },
  };
}

const WORK: Record<string, (engine: Engine) => Promise<unknown>> = {
  "Engine.generate": (engine) => collect(engine.generate(PROMPT, { maxTokens: 4, sparse: SMALL, temperature: 1 })),
  "Engine.logits": (engine) => engine.logits(PROMPT),
  "record()": async (engine) => {
    using _run = await inspectIds(engine, PROMPT, NO_TEXT, { steps: 2, sparse: SMALL, compare: ["diag"] });
  },
  "ablate()": async (engine) => {
    using run = await inspectIds(engine, PROMPT, NO_TEXT, { steps: 2, sparse: SMALL });
    await ablate(run, makeReport(run.recording, {}), [{ label: "1", pages: [1] }], new AbortController().signal);
  },
  // deno-lint-ignore require-await
  "QualitySession": async (engine) => {
    const plan = planQuality(tinyQuality);
    for (const pass of plan.passes) new QualitySession(engine, pass, plan)[Symbol.dispose]();
  },
};
for (const [name, work] of Object.entries(WORK)) {
  Deno.test(`${name} leaves nothing open wherever an allocation fails`, async () => {
    await using engine = await loadFixture(MODEL);
    const { device } = loadedOf(engine);
    const before = liveHandles();
    let failures = 0;
    for (let nth = 1; nth < 100; nth++) {
      const failed = await (async () => {
        using _fault = failAllocation(device, nth);
        return await work(engine).then(() => false, (error) => {
          assert(error instanceof PagesiftError || error instanceof NativeError, String(error));
          return true;
        });
      })();
      if (!failed) break;
      failures++;
      // What the engine keeps for its next run is not lost, and what failed is not kept: a whole run settles both.
      if (name.startsWith("Engine.")) continue;
      assertEquals(liveHandles(), before, `after failure ${nth}`);
    }
    assert(failures >= 1, `${failures} allocations could fail`);
    const kept = liveHandles();
    await work(engine);
    assertEquals(liveHandles(), kept);
  });
}

Deno.test("record() leaves nothing open when its generation throws", async () => {
  await using engine = await loadFixture(MODEL);
  const { device } = loadedOf(engine);
  const before = liveHandles();
  const check = device.check.bind(device);
  let calls = 0;
  device.check = (status) => {
    if (++calls === 400) throw new NativeError(Status.DeviceError, "The GPU is lost");
    check(status);
  };
  await assertRejects(() => inspectIds(engine, PROMPT, NO_TEXT, { steps: 8, sparse: SMALL }), NativeError);
  device.check = check;
  assertEquals(liveHandles(), before);
});

Deno.test("Session.generate runs a request that fits exactly", async () => {
  await using engine = await loadFixture(MODEL);
  const policy = engine.policy({ ...SMALL, levels: 1 });
  using session = engine.openSession(policy, { totalTokens: 56, longestTokens: 64, maxSequences: 1 });
  assertEquals(session.pool.shape.numPages, 8);
  const request = new Request(0, promptIds(MODEL, 60), { maxTokens: 5 }, engine.tokenizer.stream(), {
    eosTokenIds: [],
    maxContext: 4096,
  });
  const [outcome] = await collectBatch(session.generate([request]), 1);
  assertEquals([outcome?.ids.length, outcome?.finish], [5, "length"]);
});

Deno.test("Session.generate ends a request that its cache can never hold, and runs the one behind it", async () => {
  await using engine = await loadFixture(MODEL);
  using session = openSession(engine, 64);
  const requests = [200, 20].map((tokens, index) =>
    new Request(index, promptIds(MODEL, tokens), { maxTokens: 2 }, engine.tokenizer.stream(), {
      eosTokenIds: [],
      maxContext: 4096,
    })
  );
  const outcomes = await collectBatch(session.generate(requests), 2);
  assertEquals(outcomes.map(({ finish }) => finish), ["kv_exhausted", "length"]);
});

Deno.test("KvPool.covers tells pools whose groups have other sizes apart", async () => {
  await using engine = await loadFixture(MODEL);
  const { device, config, kv } = loadedOf(engine);
  const need = { totalTokens: 640, longestTokens: 640, maxSequences: 1 };
  const shapeOf = (scoresGroups: boolean) =>
    cacheShape(config, kv, resolvePolicy({}, config.slidingWindows, scoresGroups), need);
  using pool = new KvPool(device, shapeOf(false));
  assertEquals([pool.covers(shapeOf(false)), pool.covers({ ...shapeOf(false), groupPages: 8 })], [true, false]);
});

Deno.test("A session is refused when all but its scratch memory fits", async () => {
  await using engine = await loadFixture(MODEL);
  const { device } = loadedOf(engine);
  const describe = device.describe.bind(device);
  const need = { totalTokens: 64, longestTokens: 64, maxSequences: 16 };
  const open = () => engine.openSession(engine.policy(), need);
  const before = describe().allocatedBytes;
  let total;
  {
    using _session = open();
    total = describe().allocatedBytes - before;
  }
  device.describe = () => ({ ...describe(), availableBytes: total });
  open()[Symbol.dispose]();
  device.describe = () => ({ ...describe(), availableBytes: total - 1 });
  assertEquals(assertThrows(open, PagesiftError).kind, "memory");
  device.describe = describe;
});

Deno.test("A session records again for policies past those that it keeps, and gives the same", async () => {
  await using engine = await loadFixture(MODEL);
  using session = openSession(engine, 200);
  const sequence = session.openSequence();
  await session.prefill(sequence, PROMPT);
  const policies = Array.from(
    { length: 20 },
    (_, index) => engine.policy({ budgetTokens: 16 + 8 * (index % 5), lambda: index / 8 }),
  );
  const run = () =>
    policies.map((policy) => {
      session.truncate(sequence, PROMPT.length);
      return session.step([sequence], [9], policy).logits.readFloats();
    });
  const [first, second] = [run(), run()];
  first.forEach((logits, index) => assertSameBits(second[index]!, logits));
});

Deno.test("Decode steps do not ask the device to describe itself: it would read its free memory at each", async () => {
  await using engine = await loadFixture(MODEL);
  using session = openSession(engine, 100);
  const sequence = session.openSequence();
  await session.prefill(sequence, PROMPT);
  const { device } = session.loaded;
  const describe = device.describe;
  let count = 0;
  device.describe = () => {
    count++;
    return describe.call(device);
  };
  for (let step = 0; step < 4; step++) session.step([sequence], [9]);
  device.describe = describe;
  assertEquals(count, 0);
});
