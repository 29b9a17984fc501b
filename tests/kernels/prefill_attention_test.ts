import { Random } from "../../engine/sample/random.ts";
import { prefillAttention } from "../reference/prefill_attention.ts";
import { joined, normals } from "../support/cases.ts";
import { assertNumbersClose, assertSameBits } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { GRID } from "../support/grid.ts";
import { appendAt, buildPaged, type Paged, type PagedShape, randomSequence, slotsOf } from "../support/paged.ts";
import { attend, attendPrefill } from "../support/paged_ops.ts";
import { toleranceOf } from "../support/tolerance.ts";

const SHAPE: PagedShape = { dtype: "f32", pageSize: 8, numQueryHeads: 6, numKvHeads: 2, headDim: 32 };

function assertPrefill(paged: Paged, q: Float32Array<ArrayBuffer>, start: number, window = 0): void {
  const { shape, stored } = paged;
  const wanted = prefillAttention(q, stored[0]!.keys, stored[0]!.values, shape, start, window);
  const tokens = q.length / (shape.numQueryHeads * shape.headDim);
  const size = [tokens, shape.numQueryHeads, shape.headDim];
  const { headDim, kvType } = shape;
  const tolerance = toleranceOf({ operation: "attendPrefill", headDim, kvType }, shape.dtype);
  assertNumbersClose(attendPrefill(paged, q, start, window), wanted, size, tolerance);
}

for (const { name, shape, batch, seed } of GRID) {
  deviceTest(
    `attendPrefill in ${name.replace(/, batch.*/, "")}, ${batch === 1 ? "from the start" : "onwards"}`,
    (device) => {
      const random = new Random(seed);
      const [start, tokens] = batch === 1 ? [0, 21] : [70, 19];
      const paged = buildPaged(device, shape, [randomSequence(random, shape, start + tokens)], random);
      assertPrefill(paged, normals(random, tokens * shape.numQueryHeads * shape.headDim), start);
    },
  );
}

/** Tokens, and the position of the first: around pages, blocks of 64 and tiles of rows. */
for (const [tokens, start] of [[1, 0], [1, 63], [1, 64], [64, 0], [65, 0], [63, 1], [130, 5], [43, 200], [100, 190]]) {
  deviceTest(`attendPrefill of ${tokens} tokens from position ${start}`, (device) => {
    const random = new Random(tokens!);
    const paged = buildPaged(device, SHAPE, [randomSequence(random, SHAPE, start! + tokens!)], random);
    assertPrefill(paged, normals(random, tokens! * 6 * 32), start!);
  });
}

for (const pageSize of [8, 64]) {
  for (const window of [1, 3, 8, 20, 64, 65, 149, 150, 1000]) {
    deviceTest(`attendPrefill with a window of ${window} tokens over pages of ${pageSize}`, (device) => {
      const shape = { ...SHAPE, pageSize };
      const random = new Random(window);
      const paged = buildPaged(device, shape, [randomSequence(random, shape, 150)], random);
      assertPrefill(paged, normals(random, 150 * 6 * 32), 0, window);
      assertPrefill(paged, normals(random, 31 * 6 * 32), 119, window);
    });
  }
}

for (const window of [0, 40]) {
  for (const chunk of [1, 8, 33, 64]) {
    deviceTest(`attendPrefill in chunks of ${chunk} equals one go, window ${window}`, (device) => {
      const random = new Random(chunk);
      const paged = buildPaged(device, SHAPE, [randomSequence(random, SHAPE, 150)], random);
      const q = normals(random, 150 * 6 * 32);
      const chunks = Array.from({ length: Math.ceil(150 / chunk) }, (_, i) => {
        const rows = q.slice(i * chunk * 6 * 32, (i + 1) * chunk * 6 * 32);
        return attendPrefill(paged, rows, i * chunk, window);
      });
      assertNumbersClose(joined(chunks), attendPrefill(paged, q, 0, window), [150, 6, 32]);
    });
  }

  for (const dtype of ["f32", "f16", "bf16"] as const) {
    deviceTest(`attendPrefill of a row equals attend at that length in ${dtype}, window ${window}`, (device) => {
      const random = new Random(11);
      const shape = { ...SHAPE, dtype };
      const sequence = randomSequence(random, shape, 100);
      const paged = buildPaged(device, shape, [sequence], random);
      const q = normals(random, 100 * 6 * 32);
      const rows = attendPrefill(paged, q, 0, window);
      for (const length of [1, 8, 9, 64, 65, 100]) {
        const [from, to] = [(length - 1) * 6 * 32, length * 6 * 32];
        paged.sequences.lengths.write(Int32Array.of(length));
        const works = [{ operation: "attend" }, { operation: "attendPrefill", headDim: 32 }] as const;
        const relative = Math.max(...works.map((work) => toleranceOf(work, dtype).relative));
        assertNumbersClose(attend(paged, q.slice(from, to), { window }), rows.slice(from, to), [6, 32], { relative });
      }
    });
  }
}

for (const dtype of ["f32", "f16", "bf16"] as const) {
  const shape = { ...SHAPE, dtype };

  for (const window of [0, 30, 300]) {
    deviceTest(
      `attendPrefill far into a context in ${dtype}, where a late key outweighs all, window ${window}`,
      (device) => {
        const random = new Random(window);
        const sequence = randomSequence(random, shape, 600);
        const q = normals(random, 215 * 6 * 32, 0.5);
        for (let i = 0; i < q.length; i += 32) q[i] = 2;
        for (const head of [0, 1]) sequence.keys[(430 * 2 + head) * 32] = 400;
        assertPrefill(buildPaged(device, shape, [sequence], random), q, 385, window);
      },
    );
  }

  deviceTest(`attendPrefill in ${dtype} where scores rise with every few tokens`, (device) => {
    const random = new Random(14);
    const sequence = randomSequence(random, shape, 300);
    const q = normals(random, 40 * 6 * 32, 0.5);
    for (let i = 0; i < q.length; i += 32) q[i] = 2;
    for (let token = 0; token < 300; token++) {
      for (const head of [0, 1]) sequence.keys[(token * 2 + head) * 32] = (token - 300) / 2;
    }
    assertPrefill(buildPaged(device, shape, [sequence], random), q, 260);
  });

  deviceTest(
    `attendPrefill in ${dtype} shows a NaN in a key to the tokens from there on and to none before`,
    (device) => {
      const random = new Random(12);
      const sequence = randomSequence(random, shape, 70);
      sequence.keys[(30 * 2) * 32] = NaN;
      const paged = buildPaged(device, shape, [sequence], random);
      assertPrefill(paged, normals(random, 70 * 6 * 32), 0);
    },
  );

  deviceTest(
    `attendPrefill in ${dtype} never reads what an earlier owner left in a reused page, NaN or not`,
    (device) => {
      const random = new Random(13);
      const first = randomSequence(random, shape, 96);
      for (const numbers of [first.keys, first.values]) {
        numbers.forEach((_, i) => numbers[i] = i % 2 === 0 ? NaN : 1e30);
      }
      const second = randomSequence(random, shape, 67);
      const reused = buildPaged(device, shape, [first], random);
      appendAt(reused.cache, second, slotsOf(reused.tables[0]!, 8, 0, 67));
      const fresh = buildPaged(device, shape, [second], random);
      const q = normals(random, 67 * 6 * 32);
      assertSameBits(attendPrefill(reused, q, 0), attendPrefill(fresh, q, 0));
    },
  );
}
