import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { decodeAttention, inPages, inWindow, type Sees } from "../reference/decode_attention.ts";
import { selectPages } from "../reference/page_select.ts";
import { joined, normals, queryNear } from "../support/cases.ts";
import { assertNumbersClose, assertSameBits } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { GRID, type GridCase, gridLengths } from "../support/grid.ts";
import { appendAt, buildPaged, type Paged, type PagedShape, randomSequence, slotsOf } from "../support/paged.ts";
import { attend, scoreTensor, select, selectionRows, uploadSelection } from "../support/paged_ops.ts";

const SHAPE: PagedShape = { dtype: "f32", pageSize: 8, numQueryHeads: 6, numKvHeads: 2, headDim: 32 };

/** Of the method's fixtures: large scores lose digits in f32, and e^x shows it. */
const TOLERANCE = { relative: 1e-4 };

/** A batch and one query for each of its sequences. */
interface Batch {
  paged: Paged;
  q: Float32Array<ArrayBuffer>;
}

function makeBatch(device: Device, shape: PagedShape, lengths: number[], seed = 1): Batch {
  const random = new Random(seed);
  const parts = lengths.map((tokens) => randomSequence(random, shape, tokens));
  const q = joined(parts.map(({ keys }) => queryNear(random, keys, shape)));
  return { paged: buildPaged(device, shape, parts, random), q };
}

/** `[B, Hq, d]` of the oracle; `sees` says which tokens of sequence b count. */
function reference({ paged, q }: Batch, sees: (sequence: number) => Sees, scale?: number): Float32Array {
  const { shape, stored } = paged;
  const width = shape.numQueryHeads * shape.headDim;
  return joined(stored.map(({ keys, values }, b) => {
    const query = q.subarray(b * width, (b + 1) * width);
    return Float32Array.from(decodeAttention(query, keys, values, shape, sees(b), scale));
  }));
}

function shapeOf({ paged: { shape, tokens } }: Batch): number[] {
  return [tokens.length, shape.numQueryHeads, shape.headDim];
}

function gridBatch(device: Device, gridCase: GridCase): Batch {
  return makeBatch(device, gridCase.shape, gridLengths(gridCase), gridCase.seed);
}

const everything: Sees = () => true;

for (const gridCase of GRID) {
  deviceTest(`attend reads every page of ${gridCase.name}`, (device) => {
    const batch = gridBatch(device, gridCase);
    assertNumbersClose(attend(batch.paged, batch.q), reference(batch, () => everything), shapeOf(batch), TOLERANCE);
  });

  deviceTest(`attend reads the selected pages of ${gridCase.name}`, (device) => {
    const batch = gridBatch(device, gridCase);
    const { paged, q } = batch;
    const selection = select(paged, scoreTensor(paged, q), { k: 3, sinkPages: 0, recentPages: 1 });
    const rows = selectionRows(selection);
    const heads = paged.shape.numKvHeads;
    const sees = (b: number): Sees => inPages(rows.slice(b * heads, (b + 1) * heads), paged.shape.pageSize);
    assertNumbersClose(attend(paged, q, { selection }), reference(batch, sees), shapeOf(batch), TOLERANCE);
  });
}

const LENGTHS: Record<string, number> = {
  "one token": 1,
  "one exactly full page": 8,
  "a last page of one token": 17,
  "exactly full pages": 256,
  "one token past a split": 257,
  "several splits": 2051,
};

for (const [name, tokens] of Object.entries(LENGTHS)) {
  deviceTest(`attend reads a sequence of ${name}`, (device) => {
    const batch = makeBatch(device, SHAPE, [tokens]);
    assertNumbersClose(attend(batch.paged, batch.q), reference(batch, () => everything), shapeOf(batch), TOLERANCE);
  });

  for (const dtype of ["f32", "bf16"] as const) {
    deviceTest(`attend over a selection of all ${dtype} pages of ${name} has the bits of dense`, (device) => {
      const { paged, q } = makeBatch(device, { ...SHAPE, dtype }, [tokens, 9]);
      const selection = select(paged, scoreTensor(paged, q), { k: Math.ceil(tokens / 8) + 1 });
      assertSameBits(attend(paged, q, { selection }), attend(paged, q));
    });
  }
}

deviceTest("attend over a budget of one page reads the last page", (device) => {
  const batch = makeBatch(device, SHAPE, [45]);
  const selection = select(batch.paged, scoreTensor(batch.paged, batch.q), { k: 1 });
  const wanted = reference(batch, () => inWindow(45, 5));
  assertNumbersClose(attend(batch.paged, batch.q, { selection }), wanted, shapeOf(batch), TOLERANCE);
});

deviceTest("attend over other pages for every KV head and more pages than a split", (device) => {
  const batch = makeBatch(device, SHAPE, [1600, 900]);
  const random = new Random(2);
  const rows = batch.paged.tables.flatMap((table) =>
    [60, 33].map((k) => selectPages(normals(random, table.length), k, 1, 2))
  );
  const selection = uploadSelection(batch.paged, rows);
  const wanted = reference(batch, (b) => inPages(rows.slice(b * 2, b * 2 + 2), 8));
  assertNumbersClose(attend(batch.paged, batch.q, { selection }), wanted, shapeOf(batch), TOLERANCE);
});

for (const pageSize of [8, 64]) {
  for (const window of [1, 5, 8, 9, 64, 100, 299, 300, 301, 5000]) {
    deviceTest(`attend with a window of ${window} tokens over pages of ${pageSize}`, (device) => {
      const batch = makeBatch(device, { ...SHAPE, pageSize }, [300, 3]);
      const wanted = reference(batch, (b) => inWindow(batch.paged.tokens[b]!, window));
      assertNumbersClose(attend(batch.paged, batch.q, { window }), wanted, shapeOf(batch), TOLERANCE);
    });
  }
}

for (const window of [300, 5000]) {
  deviceTest(`attend with a window of ${window} over 300 tokens has the bits of no window`, (device) => {
    const { paged, q } = makeBatch(device, SHAPE, [300]);
    assertSameBits(attend(paged, q, { window }), attend(paged, q));
  });
}

deviceTest("attend multiplies scores by the scale given", (device) => {
  const batch = makeBatch(device, SHAPE, [77]);
  const wanted = reference(batch, () => everything, 0.9);
  assertNumbersClose(attend(batch.paged, batch.q, { scale: 0.9 }), wanted, shapeOf(batch), TOLERANCE);
});

deviceTest("attend stays finite when scores are far above what e^x can hold", (device) => {
  const batch = makeBatch(device, SHAPE, [600]);
  const wanted = reference(batch, () => everything, 300);
  assertNumbersClose(attend(batch.paged, batch.q, { scale: 300 }), wanted, shapeOf(batch), { relative: 1e-3 });
});

for (const [name, number] of [["NaN", NaN], ["Infinity", Infinity], ["-Infinity", -Infinity]] as const) {
  for (const place of [0, 300, 599]) {
    deviceTest(`attend shows ${name} in key ${place} in the heads that read it and in no other`, (device) => {
      const random = new Random(7);
      const part = randomSequence(random, SHAPE, 600);
      part.keys[(place * 2 + 1) * 32 + 4] = number;
      const q = queryNear(random, part.keys, SHAPE).map((x) => Number.isFinite(x) ? x : 1);
      const batch = { paged: buildPaged(device, SHAPE, [part], random), q };
      assertNumbersClose(attend(batch.paged, q), reference(batch, () => everything), shapeOf(batch), TOLERANCE);
    });
  }
}

deviceTest("attend shows a NaN in a value in its own dimension", (device) => {
  const random = new Random(8);
  const part = randomSequence(random, SHAPE, 20);
  part.values[(11 * 2) * 32 + 4] = NaN;
  const batch = { paged: buildPaged(device, SHAPE, [part], random), q: normals(random, 6 * 32) };
  assertNumbersClose(attend(batch.paged, batch.q), reference(batch, () => everything), shapeOf(batch), TOLERANCE);
});

for (const pageSize of [8, 16, 64]) {
  deviceTest(`attend never reads what an earlier owner left in a reused page of ${pageSize}, NaN or not`, (device) => {
    const shape = { ...SHAPE, pageSize };
    const random = new Random(9);
    const first = randomSequence(random, shape, 3 * pageSize);
    for (const numbers of [first.keys, first.values]) numbers.forEach((_, i) => numbers[i] = i % 2 === 0 ? NaN : 1e30);
    const second = randomSequence(random, shape, 2 * pageSize + 3);
    const reused = buildPaged(device, shape, [first], random);
    appendAt(reused.cache, second, slotsOf(reused.tables[0]!, pageSize, 0, 2 * pageSize + 3));
    reused.sequences.lengths.write(Int32Array.of(2 * pageSize + 3));
    const fresh = buildPaged(device, shape, [second], random);
    const q = normals(random, 6 * 32);
    assertSameBits(attend(reused, q), attend(fresh, q));
    const [selection, same] = [reused, fresh].map((paged) => uploadSelection(paged, [[0, 2], [1, 2]]));
    assertSameBits(attend(reused, q, { selection: selection! }), attend(fresh, q, { selection: same! }));
  });
}
