/** What fits, what does not, and what the errors advise. The free memory is a number of the test's. */
import { assert, assertEquals, assertMatch, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { cacheShape, type PoolNeed } from "../../engine/pages/kv_pool.ts";
import type { Engine } from "../../engine/engine.ts";
import { PagesiftError } from "../../engine/errors.ts";
import type { LoadedModel } from "../../engine/loaded_model.ts";
import { checkCacheFits, checkWeightsFit, engineError, needOfKnown, needOfUnknown } from "../../engine/memory.ts";
import { resolvePolicy } from "../../engine/pages/page_policy.ts";
import { Request } from "../../engine/request.ts";
import type { GenerateRequest } from "../../engine/types.ts";
import type { Device } from "../../ffi/device.ts";
import { NativeError, Status } from "../../ffi/errors.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import type { CacheShape } from "../../ffi/structs.ts";
import { deviceTest } from "../support/device.ts";
import { collect, loadedOf, loadFixture, loadFolder, ModelCopy, promptIds } from "../support/fixture_model.ts";

const MODEL = "llama-f32";
const MIB = 1 << 20;

/** From now on the device says that this much is free. */
function setFree(device: Device, availableBytes: number): void {
  const info = device.describe();
  device.describe = () => ({ ...info, availableBytes });
}

/** A fixture that claims a context of a billion tokens. */
async function withHugeContext(body: (engine: Engine) => Promise<void>): Promise<void> {
  using copy = ModelCopy.of(MODEL).configure({ max_position_embeddings: 1e9 });
  await using engine = await loadFolder(copy.folder);
  await body(engine);
}

/** Without `pageSize` with the engine's own policy, whose pages may come in groups. */
function shapeOf(engine: Engine, need: PoolNeed, pageSize?: number): CacheShape {
  const policy = pageSize ? resolvePolicy({ pageSize }, engine.config.slidingWindows) : engine.policy();
  return cacheShape(engine.config, { dtype: "f32" }, policy, need);
}

/** The context that an error advises, in tokens. */
function advice({ message }: PagesiftError): number {
  return Number(/about (\d+) tokens would fit/.exec(message)?.[1]);
}

Deno.test("Engine.generate refuses an answer that memory cannot hold, and says what takes it", async () => {
  await withHugeContext(async (engine) => {
    const { kind, message } = await assertRejects(
      () => collect(engine.generate(promptIds(MODEL), { maxTokens: 1e12 })),
      PagesiftError,
    );
    assertEquals(kind, "memory");
    assertMatch(
      message,
      /^Not enough memory for a context of 1000000000 tokens: KV [\d.]+ GiB, statistics [\d.]+ GiB, scratch [\d.]+ \w+ needed /,
    );
    assertMatch(message, /weights of [\d.]+ kiB, [\d.]+ GiB free; about \d+ tokens would fit \(--ctx-size, /);
  });
});

Deno.test("Engine.generate serves on after it ran out of memory", async () => {
  await withHugeContext(async (engine) => {
    const first = await collect(engine.generate(promptIds(MODEL), { maxTokens: 3 }));
    await assertRejects(() => engine.generate([1], { maxTokens: 1e12 }).next(), PagesiftError);
    assertEquals(await collect(engine.generate(promptIds(MODEL), { maxTokens: 3 })), first);
  });
});

Deno.test("Engine.generateBatch refuses requests that only together need too many pages", async () => {
  await withHugeContext(async (engine) => {
    const requests = Array.from({ length: 16 }, () => ({ prompt: [1], options: { maxTokens: 9e8 } }));
    const { kind } = await assertRejects(() => engine.generateBatch(requests, { parallel: 16 }).next(), PagesiftError);
    assertEquals(kind, "memory");
  });
});

Deno.test("Engine.generateBatch names --parallel where that many requests do not fit", async () => {
  await using engine = await loadFixture(MODEL);
  setFree(loadedOf(engine).device, 3 * MIB);
  const requests = Array.from({ length: 200 }, (_, index) => ({ prompt: promptIds(MODEL, 220 + index).slice(index) }));
  const pieces = engine.generateBatch(requests, { parallel: 200 });
  assertMatch((await assertRejects(() => pieces.next(), PagesiftError)).message, /200 sequences.*--parallel/);
});

for (const [pageSize, freeBytes] of [[8, 3 * MIB], [8, 40 * MIB], [64, 3 * MIB]] as const) {
  Deno.test(`checkCacheFits advises a context that fits, pages of ${pageSize} and ${freeBytes / MIB} MiB`, async () => {
    await withHugeContext(async (engine) => {
      setFree(loadedOf(engine).device, freeBytes);
      const sparse = { pageSize };
      const failed = await assertRejects(() => engine.generate([1], { maxTokens: 1e12, sparse }).next(), PagesiftError);
      const tokens = advice(failed);
      const pieces = engine.generate([1], { maxTokens: tokens, sparse });
      assertEquals((await pieces.next()).done, false);
      await pieces.return(undefined);
    });
  });

  Deno.test(`checkCacheFits advises most of what fits, pages of ${pageSize} and ${freeBytes / MIB} MiB`, async () => {
    await using engine = await loadFixture(MODEL);
    setFree(loadedOf(engine).device, freeBytes);
    const check = (tokens: number): void => {
      const need = { totalTokens: tokens, longestTokens: tokens, maxSequences: 1 };
      checkCacheFits(loadedOf(engine).device, shapeOf(engine, need, pageSize), loadedOf(engine).facts.weightBytes);
    };
    const tokens = advice(assertThrows(() => check(1e8), PagesiftError));
    check(tokens);
    assertThrows(() => check(tokens + Math.max(8 * pageSize, tokens / 50)), PagesiftError);
  });
}

Deno.test("Engine reports a failed allocation for the steps as kind memory, and serves on", async () => {
  await using engine = await loadFixture(MODEL);
  const { device } = loadedOf(engine);
  const createBuffer = device.createBuffer;
  device.createBuffer = () => {
    throw new NativeError(Status.OutOfMemory, "Out of main memory");
  };
  for (const work of [() => engine.generate([1]).next(), () => engine.logits([1])]) {
    assertEquals((await assertRejects(work, PagesiftError)).kind, "memory");
  }
  device.createBuffer = createBuffer;
  assertEquals((await collect(engine.generate([1], { maxTokens: 2 }))).ids.length, 2);
});

Deno.test("checkCacheFits advises no tokens where not even the scratch memory fits", async () => {
  await using engine = await loadFixture(MODEL);
  setFree(loadedOf(engine).device, 100);
  const shape = shapeOf(engine, { totalTokens: 8, longestTokens: 8, maxSequences: 1 });
  assertEquals(advice(assertThrows(() => checkCacheFits(loadedOf(engine).device, shape, 0), PagesiftError)), 0);
});

Deno.test("checkCacheFits measures what the cache then takes", async () => {
  await using engine = await loadFixture(MODEL);
  const shape = shapeOf(engine, { totalTokens: 5000, longestTokens: 5000, maxSequences: 3 });
  const before = loadedOf(engine).device.describe().allocatedBytes;
  using _cache = KvCache.create(loadedOf(engine).device, shape);
  const { kv, statistics, scratch } = KvCache.measure(loadedOf(engine).device, shape);
  assertEquals(loadedOf(engine).device.describe().allocatedBytes - before, kv + statistics + scratch);
});

deviceTest("checkWeightsFit names what is needed and what is free", (device) => {
  setFree(device, 3 * MIB);
  checkWeightsFit(device, 3 * MIB);
  const { kind, message } = assertThrows(() => checkWeightsFit(device, 5 * MIB), PagesiftError);
  assertEquals([kind, message], [
    "memory",
    "Not enough memory for the weights: 5 MiB needed, 3 MiB free; free some, or use a smaller model",
  ]);
});

Deno.test("engineError gives failures of the device the kind that decides the exit code, and leaves others alone", () => {
  const kindOf = (status: Status): unknown => {
    const error = engineError(new NativeError(status, "text"));
    return error instanceof PagesiftError ? error.kind : undefined;
  };
  assertEquals(
    [Status.OutOfMemory, Status.NoDevice, Status.Unsupported, Status.DeviceError].map(kindOf),
    ["memory", "device", "device", "device"],
  );
  for (const other of [new NativeError(Status.Internal, "other"), new RangeError("another")]) {
    assertStrictEquals(engineError(other), other);
  }
});

Deno.test("Engine reports a device that fails during a step as kind device", async () => {
  await using engine = await loadFixture(MODEL);
  const { device } = loadedOf(engine);
  const check = device.check.bind(device);
  let calls = 0;
  device.check = (status) => {
    if (++calls > 200) throw new NativeError(Status.DeviceError, "The GPU is lost");
    check(status);
  };
  const failed = await assertRejects(() => collect(engine.generate([1], { maxTokens: 50 })), PagesiftError);
  device.check = check;
  assertEquals([failed.kind, failed.message], ["device", "The GPU is lost"]);
});

/** What a batch needs whose requests have 100 tokens each in the cache. */
function needOfBatch(engine: Engine, loaded: LoadedModel, count: number, parallel?: number): PoolNeed {
  const limits = { eosTokenIds: [], maxContext: engine.config.maxContext };
  const requests = Array.from({ length: count }, (_, index) => {
    const ids = promptIds(MODEL, 100 + index).slice(index);
    return new Request(index, ids, { maxTokens: 1 }, engine.tokenizer.stream(), limits);
  });
  return needOfKnown(loaded, engine.policy(), requests, parallel);
}

/** Bytes of the cache for a batch of which `parallel` requests run. */
function bytesOfBatch(engine: Engine, loaded: LoadedModel, count: number, parallel: number): number {
  const shape = shapeOf(engine, needOfBatch(engine, loaded, count, parallel));
  const { kv, statistics, scratch } = KvCache.measure(loaded.device, shape);
  return kv + statistics + scratch;
}

for (
  const [what, free, expected] of [
    ["all of a batch", (bytes: (count: number) => number) => 2 * bytes(40), 40],
    ["as many as fit in half of the memory", (bytes: (count: number) => number) => 2 * bytes(33), 33],
    ["up to 16 in all of the memory", (bytes: (count: number) => number) => bytes(12), 12],
    ["one where none fits", () => 60_000, 1],
  ] as const
) {
  Deno.test(`needOfKnown plans ${what}`, async () => {
    await using engine = await loadFixture(MODEL);
    const loaded = loadedOf(engine);
    setFree(loaded.device, free((count) => bytesOfBatch(engine, loaded, 40, count)));
    assertEquals(needOfBatch(engine, loaded, 40).maxSequences, expected);
  });
}

Deno.test("needOfKnown plans what the caller says, whether it fits or not", async () => {
  await using engine = await loadFixture(MODEL);
  const loaded = loadedOf(engine);
  setFree(loaded.device, 60_000);
  const needs = [needOfBatch(engine, loaded, 40, 3), needOfBatch(engine, loaded, 2, 30)];
  assertEquals(needs.map((need) => need.maxSequences), [3, 2]);
});

Deno.test("needOfUnknown plans as many requests of full length as the caller says", async () => {
  await using engine = await loadFixture(MODEL);
  const { maxContext } = engine.config;
  const need = needOfUnknown(loadedOf(engine), engine.policy(), Infinity, 3);
  assertEquals(need, { totalTokens: 3 * maxContext, longestTokens: maxContext, maxSequences: 3 });
});

Deno.test("needOfUnknown plans 16 requests of full length where they fit, or more short ones", async () => {
  await using engine = await loadFixture(MODEL);
  const { maxContext } = engine.config;
  const need = needOfUnknown(loadedOf(engine), engine.policy(), Infinity);
  assertEquals(need, { totalTokens: 16 * maxContext, longestTokens: maxContext, maxSequences: 128 });
});

Deno.test("needOfUnknown plans nearly as many tokens as fit where full length does not", async () => {
  await withHugeContext((engine) => {
    const loaded = loadedOf(engine);
    const need = needOfUnknown(loaded, engine.policy(), 64 * MIB);
    const { kv, statistics, scratch } = KvCache.measure(loaded.device, shapeOf(engine, need));
    const share = (kv + statistics + scratch) / (64 * MIB);
    assert(share > 0.9 && share <= 1, `${share}`);
    assertEquals(need.longestTokens, need.totalTokens);
    return Promise.resolve();
  });
});

Deno.test("Engine.generateBatch answers a request that arrives where the whole context would not fit", async () => {
  await withHugeContext(async (engine) => {
    setFree(loadedOf(engine).device, 64 * MIB);
    async function* source(): AsyncGenerator<GenerateRequest> {
      yield await Promise.resolve({ prompt: promptIds(MODEL, 5), options: { maxTokens: 2 } });
    }
    const ends: unknown[] = [];
    for await (const { finish } of engine.generateBatch(source())) if (finish) ends.push(finish);
    assertEquals(ends, ["length"]);
  });
});
