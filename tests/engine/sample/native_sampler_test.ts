/** Tokens that the device draws, against those that the TypeScript sampler draws from the same logits with the same seed. */
import { assert, assertEquals } from "@std/assert";
import { NativeSampler } from "../../../engine/sample/native_sampler.ts";
import { Random } from "../../../engine/sample/random.ts";
import { Sampler } from "../../../engine/sample/sampler.ts";
import type { GenerateOptions, GenerateRequest, SamplingOptions } from "../../../engine/types.ts";
import { normals } from "../../support/cases.ts";
import { deviceTest } from "../../support/device.ts";
import { collect, collectBatch, loadFixture, promptIds } from "../../support/fixture_model.ts";

const MODEL = "llama-f32";
const STEPS = 200;
const FILTERS: Record<string, SamplingOptions> = {
  "no filter": { temperature: 0.9 },
  "top-k": { temperature: 0.8, topK: 40 },
  "top-p": { temperature: 1.2, topP: 0.9 },
  "min-p": { temperature: 1, minP: 0.05 },
  "all three": { temperature: 0.7, topK: 50, topP: 0.95, minP: 0.02 },
};

/** Ids of a generation, and the logits from which each was drawn on the device. */
async function generate(options: GenerateOptions): Promise<{ ids: number[]; logits: Float32Array[] }> {
  const { start } = NativeSampler.prototype;
  const logits: Float32Array[] = [];
  NativeSampler.prototype.start = function (rows, samplers, ids): void {
    logits.push(rows.readFloats());
    start.call(this, rows, samplers, ids);
  };
  try {
    await using engine = await loadFixture(MODEL);
    return { ids: (await collect(engine.generate(promptIds(MODEL, 20), options))).ids, logits };
  } finally {
    NativeSampler.prototype.start = start;
  }
}

for (const [name, filters] of Object.entries(FILTERS)) {
  Deno.test(`Engine.generate draws on the device what Sampler draws, with ${name}`, async () => {
    const { ids, logits } = await generate({ ...filters, seed: 4, maxTokens: STEPS });
    const sampler = new Sampler({ ...filters, seed: 4 });
    assertEquals(ids, logits.map((row) => sampler.sample(row, [])));
    assertEquals(ids.length, STEPS);
  });

  deviceTest(`NativeSampler draws what Sampler draws from 50,000 logits, with ${name}`, (device) => {
    using native = new NativeSampler(device, 4);
    const row = normals(new Random(3), 50_000, 2.5);
    const logits = device.upload(row, [1, row.length]);
    const [ours, theirs] = [new Sampler({ ...filters, seed: 6 }), new Sampler({ ...filters, seed: 6 })];
    for (let step = 0; step < 30; step++) assertEquals(native.sample(logits, [ours]), [theirs.sample(row, [])]);
  });
}

Deno.test("Sampler.deviceSettings stay what they mean in f32", () => {
  const settings = (options: SamplingOptions): number[] =>
    Array.from(new Sampler(options).deviceSettings ?? [], Math.fround);
  assertEquals(settings({}), [1, 1, 0, 1]);
  assertEquals(settings({ temperature: 0.5, topP: 0.75, minP: 0.25, topK: 7 }), [0.5, 0.75, 0.25, 7]);
  const [temperature = 0, topP = 0, minP = 0] = settings({ temperature: 1e-300, topP: 1e-300, minP: 1e-300 });
  assert(temperature > 0 && topP > 0 && minP > 0);
  assert(Number.isFinite(settings({ temperature: 1e300 })[0]));
  assert(settings({ temperature: 1, topP: 1 - 1e-12 })[1]! < 1); // still a filter
});

Deno.test("Sampler.deviceSettings are undefined with a repetition penalty that looks at tokens", () => {
  assertEquals(new Sampler({ temperature: 1, repeatPenalty: 1.1 }).deviceSettings, undefined);
  assert(new Sampler({ temperature: 1, repeatPenalty: 1.1, repeatLastTokens: 0 }).deviceSettings);
});

Deno.test("Sampler.nextDraw uses up one random number a token, and none at temperature 0", () => {
  const logits = Float32Array.of(1, 2, 3);
  const [drawing, sampling] = [new Sampler({ temperature: 1, seed: 1 }), new Sampler({ temperature: 1, seed: 1 })];
  drawing.nextDraw(), sampling.sample(logits, []);
  assertEquals(drawing.nextDraw(), sampling.nextDraw());
  assertEquals(new Sampler({ seed: 1 }).nextDraw(), 0);
});

Deno.test("Engine.generateBatch draws for greedy, sampled and penalised requests together what each gives alone", async () => {
  await using engine = await loadFixture(MODEL);
  const kinds: SamplingOptions[] = [
    {},
    { temperature: 1, seed: 1 },
    { temperature: 1, seed: 2, repeatPenalty: 1.3 },
    { repeatPenalty: 1.3 },
    { temperature: 0.7, topK: 9, seed: 3 },
  ];
  const requests: GenerateRequest[] = kinds.map((kind, index) => ({
    prompt: promptIds(MODEL, 20 + index),
    options: { ...kind, maxTokens: 25 },
  }));
  const together = await collectBatch(engine.generateBatch(requests), requests.length);
  for (const [index, { prompt, options }] of requests.entries()) {
    assertEquals(together[index], await collect(engine.generate(prompt, options)));
  }
});
