import { assert, assertEquals, assertLess, assertThrows } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { sample } from "../../ffi/ops.ts";
import type { Tensor } from "../../ffi/tensor.ts";
import { candidates, sample as reference, type SampleSettings } from "../reference/sample.ts";
import { normals } from "../support/cases.ts";
import { deviceTest } from "../support/device.ts";

type Floats = Float32Array<ArrayBuffer>;
const PLAIN: SampleSettings = { temperature: 1, topP: 1, minP: 0, topK: 0 };
/** The largest f32 below 1. */
const LAST = 1 - 2 ** -24;
const DRAWS = [0, 0.1, 0.37, 0.5, 0.77, 0.999, LAST];

function settingsTensor(device: Device, settings: readonly SampleSettings[]): Tensor {
  const numbers = settings.flatMap(({ temperature, topP, minP, topK }) => [temperature, topP, minP, topK]);
  return device.upload(Float32Array.from(numbers), [settings.length, 4]);
}

/** A draw from each row of a tensor, with settings for each row. */
function sampleRows(device: Device, logits: Tensor, settings: SampleSettings[], draws: readonly number[]): number[] {
  const out = device.createTensor("i32", [draws.length]);
  sample(
    device,
    logits,
    settingsTensor(device, settings),
    device.upload(Float32Array.from(draws), [draws.length]),
    out,
  );
  return [...out.readInts()];
}

/** Draws from one row, repeated for every draw. */
function sampleOf(device: Device, row: Floats, settings: Partial<SampleSettings>, draws: readonly number[]): number[] {
  const all = new Float32Array(row.length * draws.length);
  draws.forEach((_, i) => all.set(row, i * row.length));
  const logits = device.upload(all, [draws.length, row.length]);
  return sampleRows(device, logits, draws.map(() => ({ ...PLAIN, ...settings })), draws);
}

/** Fails unless each draw fell on its token, or beside it by what rounding an exponential may move. */
function assertDrawn(ids: readonly number[], row: Floats, settings: SampleSettings, draws: readonly number[]): void {
  const kept = candidates(row, settings);
  const total = Number(kept.reduce((sum, { weight }) => sum + weight, 0n));
  const ends = new Map<number, [number, number]>();
  let sum = 0;
  for (const { id, weight } of kept) ends.set(id, [sum / total, (sum += Number(weight)) / total]);
  draws.forEach((draw, i) => {
    const [start, end] = ends.get(ids[i]!) ?? [NaN, NaN];
    const close = start - 2e-6 <= draw && draw <= end + 2e-6;
    assert(close, `draw ${draw} took ${ids[i]} of [${start}, ${end}), wanted ${reference(row, settings, draw)}`);
  });
}

const FILTERS: Record<string, Partial<SampleSettings>> = {
  "no filter": {},
  "top-k 1": { topK: 1 },
  "top-k 40": { topK: 40 },
  "top-k 3000": { topK: 3000 },
  "top-k beyond the row": { topK: 200_000 },
  "top-p 0.5": { topP: 0.5 },
  "top-p 0.95": { topP: 0.95 },
  "min-p 0.05": { minP: 0.05 },
  "min-p 1e-6": { minP: 1e-6 },
  "min-p 1": { minP: 1 },
  "top-k 40, top-p 0.9 and min-p 0.1": { topK: 40, topP: 0.9, minP: 0.1 },
  "top-k 5000, top-p 0.8 and min-p 1e-4": { topK: 5000, topP: 0.8, minP: 1e-4 },
};

for (const width of [1, 7, 1024, 4096, 151_936]) {
  const row = normals(new Random(width), width, 2);
  for (const [name, filters] of Object.entries(FILTERS)) {
    deviceTest(`sample from ${width} tokens with ${name}`, (device) => {
      for (const temperature of width > 5000 ? [0.8] : [0.05, 0.8, 1, 5]) {
        const settings = { ...PLAIN, ...filters, temperature };
        assertDrawn(sampleOf(device, row, settings, DRAWS), row, settings, DRAWS);
      }
    });
  }
}

/** Few different logits, so that every cut falls among equal ones. */
const TIED = normals(new Random(5), 9000).map((number) => Math.round(number));
for (const [name, filters] of Object.entries(FILTERS)) {
  deviceTest(`sample from tied logits with ${name}`, (device) => {
    for (const settings of [0.5, 1, 3].map((temperature) => ({ ...PLAIN, ...filters, temperature }))) {
      assertDrawn(sampleOf(device, TIED, settings, DRAWS), TIED, settings, DRAWS);
    }
  });
}

deviceTest("sample walks equal logits by rising id, whatever cuts them", (device) => {
  const row = new Float32Array(3000);
  const draws = Array.from({ length: 64 }, (_, i) => i / 64);
  const wanted = (kept: number): number[] => draws.map((draw) => Math.floor(draw * kept));
  assertEquals(sampleOf(device, row, {}, draws), wanted(3000));
  assertEquals(sampleOf(device, row, { topK: 2048 }, draws), wanted(2048));
  assertEquals(sampleOf(device, row, { topK: 64 }, draws), wanted(64));
  assertEquals(sampleOf(device, row, { topP: 0.5 }, draws), wanted(1500));
  assertEquals(sampleOf(device, row, { minP: 1 }, draws), wanted(3000));
  assertEquals(sampleOf(device, row, { topK: 2000, topP: 0.25, minP: 0.5, temperature: 9 }, draws), wanted(500));
});

deviceTest("sample counts the two zeros as equal", (device) => {
  assertEquals(sampleOf(device, Float32Array.of(-0, 0, -1), { topK: 1 }, [0.5]), [0]);
  assertEquals(sampleOf(device, Float32Array.of(0, -0, -1), { topK: 2 }, [0.25, 0.75]), [0, 1]);
});

deviceTest("sample draws by rising id without a filter and by falling rank with one", (device) => {
  const row = Float32Array.of(1, 3, 2, 3);
  assertEquals(sampleOf(device, row, {}, [0, LAST]), [0, 3]);
  assertEquals(sampleOf(device, row, { topK: 4 }, [0, LAST]), [1, 0]);
});

deviceTest("sample keeps the fewest tokens that reach top-p, of what top-k kept and before temperature", (device) => {
  const row = Float32Array.from([0.5, 0.25, 0.15, 0.07, 0.03], Math.log);
  const last = (settings: Partial<SampleSettings>): number[] => sampleOf(device, row, settings, [LAST]);
  assertEquals(last({ topP: 0.4 }), [0]);
  assertEquals(last({ topP: 0.6 }), [1]);
  assertEquals(last({ topP: 1e-30 }), [0]);
  assertEquals(last({ topK: 2, topP: 0.6 }), [0]);
  assertEquals(last({ topP: 0.7, temperature: 4 }), [1]);
  assertEquals(last({ minP: 0.28 }), [2]);
});

deviceTest("sample takes the best token at a tiny temperature and spreads evenly at a large one", (device) => {
  const row = normals(new Random(8), 1000);
  const best = row.indexOf(row.reduce((a, b) => Math.max(a, b)));
  for (const filters of [{}, { topK: 50 }, { topP: 0.9 }]) {
    assertEquals(sampleOf(device, row, { ...filters, temperature: 1e-20 }, DRAWS), DRAWS.map(() => best));
  }
  const even = Array.from({ length: 10 }, (_, i) => (i + 0.5) / 1000);
  assertEquals(sampleOf(device, row, { temperature: 1e20 }, even), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

deviceTest("sample gives -1 for rows with a NaN, an infinite maximum or no finite logit", (device) => {
  const rows = [NaN, Infinity].map((bad) => Float32Array.from({ length: 2000 }, (_, id) => id === 1999 ? bad : 0));
  for (const row of [...rows, new Float32Array(2000).fill(-Infinity)]) {
    for (const filters of [{}, { topK: 3 }, { topP: 0.5 }, { minP: 0.5 }]) {
      assertEquals(sampleOf(device, row, filters, [0, 0.5, LAST]), [-1, -1, -1]);
    }
  }
});

deviceTest("sample gives -1 where the temperature is not above 0", (device) => {
  for (const temperature of [0, -1, NaN]) {
    assertEquals(sampleOf(device, Float32Array.of(1, 2), { temperature }, [0.5]), [-1]);
  }
});

deviceTest("sample never draws a logit of -Infinity", (device) => {
  const row = Float32Array.from({ length: 4000 }, (_, id) => id % 2 ? id / 4000 : -Infinity);
  for (const filters of [{}, { topK: 3000 }, { topK: 40 }, { topP: 0.99 }, { minP: 1e-9 }]) {
    const ids = sampleOf(device, row, { ...filters, temperature: 100 }, DRAWS);
    assertEquals(ids.filter((id) => id % 2 !== 1), []);
  }
});

deviceTest("sample serves rows of different settings and strided logits in one call", (device) => {
  const [width, stride] = [1500, 1731];
  const numbers = normals(new Random(9), 12 * stride, 3);
  const settings = Object.values(FILTERS).map((filters, i) => ({ ...PLAIN, ...filters, temperature: 0.5 + i / 8 }));
  const draws = settings.map((_, i) => (i + 0.4) / settings.length);
  const ids = sampleRows(device, device.upload(numbers, [12, stride]).columns(101, width), settings, draws);
  settings.forEach((one, i) => {
    assertDrawn([ids[i]!], numbers.slice(i * stride + 101, i * stride + 101 + width), one, [draws[i]!]);
  });
});

deviceTest("sample draws tokens as often as their weights say", (device) => {
  const random = new Random(11);
  const row = normals(random, 300, 1.5);
  for (const filters of [{}, { topK: 20 }, { topP: 0.7 }]) {
    const settings = { ...PLAIN, ...filters, temperature: 1.3 };
    const draws = Array.from({ length: 20_000 }, () => Math.min(LAST, random.nextFloat()));
    const counts = new Map<number, number>();
    for (const id of sampleOf(device, row, settings, draws)) counts.set(id, (counts.get(id) ?? 0) + 1);
    const kept = candidates(row, settings);
    const total = Number(kept.reduce((sum, { weight }) => sum + weight, 0n));
    const statistic = kept.reduce((sum, { id, weight }) => {
      const wanted = 20_000 * Number(weight) / total;
      return sum + ((counts.get(id) ?? 0) - wanted) ** 2 / wanted;
    }, 0);
    // Beyond the 0.9999 quantile of chi-square, whose mean is the degrees of freedom and whose variance twice that.
    assertLess(statistic, kept.length - 1 + 4.5 * Math.sqrt(2 * kept.length));
    assert([...counts.keys()].every((id) => kept.some((one) => one.id === id)));
  }
});

deviceTest("sample refuses tensors of other shapes", (device) => {
  const make = (shape: number[]): Tensor => device.createTensor("f32", shape);
  const out = device.createTensor("i32", [2]);
  assertThrows(() => sample(device, make([2, 9]), make([2, 3]), make([2]), out), Error, "settings");
  assertThrows(() => sample(device, make([2, 9]), make([2, 4]), make([3]), out), Error, "draws");
  assertThrows(() => sample(device, make([3, 9]), make([3, 4]), make([3]), out), Error, "out");
});
