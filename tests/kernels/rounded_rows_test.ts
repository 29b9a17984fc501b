/**
 * The CUDA build rounds the x of a product in the operation that writes it, where one product after another takes many tokens. A product may
 * never take rounded numbers of what its x was before.
 */
import { assertNotEquals } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { addRmsNorm, fusedMatmul, geluMul, matmul, rmsNorm, scale, siluMul } from "../../ffi/ops.ts";
import type { Tensor } from "../../ffi/tensor.ts";
import { normals } from "../support/cases.ts";
import { assertSameBits } from "../support/compare.ts";
import { DEVICE_KIND, deviceTest, withDevice } from "../support/device.ts";
import { uploadAs } from "../support/numbers.ts";
import { buildPaged, type PagedShape, randomSequence } from "../support/paged.ts";
import { emptySelection } from "../support/paged_ops.ts";

const EPS = 1e-6;
const OUTPUTS = 24;

/** Tensors of a product of rows `x`, which some operation writes from `sources`. */
class Rows {
  readonly sources: Tensor[];
  readonly norm: Tensor;
  readonly x: Tensor;
  readonly #weight: Tensor;
  readonly out: Tensor;

  constructor(readonly device: Device, readonly tokens: number, readonly width: number) {
    const random = new Random(tokens + width);
    this.sources = [1, 2].map(() => device.upload(normals(random, tokens * width), [tokens, width]));
    this.norm = uploadAs(device, "bf16", normals(random, width), [width]);
    this.x = device.createTensor("f32", [tokens, width]);
    this.#weight = uploadAs(device, "bf16", normals(random, OUTPUTS * width), [OUTPUTS, width]);
    this.out = device.createTensor("f32", [tokens, OUTPUTS]);
    this.product(); // from now on, a product is expected
  }

  /** Queues the product of x, or of some of its rows. */
  start(x: Tensor = this.x): Tensor {
    const out = this.out.rows(0, x.shape[0]!);
    matmul(this.device, x, this.#weight, undefined, out);
    return out;
  }

  product(x?: Tensor): Float32Array<ArrayBuffer> {
    return this.start(x).readFloats();
  }

  /** The product of the numbers that x holds, after a copy to the device. */
  productOfCopy(x: Tensor = this.x): Float32Array<ArrayBuffer> {
    const numbers = x.readFloats();
    x.write(numbers);
    return this.product(x);
  }
}

type Writer = (rows: Rows) => void;

const norm: Writer = ({ device, sources: [a], norm, x }) => rmsNorm(device, a!, norm, EPS, x);

const WRITERS: Readonly<Record<string, Writer>> = {
  rmsNorm: norm,
  addRmsNorm: ({ device, sources: [a, b], norm, x }) => addRmsNorm(device, a!, b!, norm, EPS, x),
  siluMul: ({ device, sources: [a, b], x }) => siluMul(device, a!, b!, x),
  geluMul: ({ device, sources: [a, b], x }) => geluMul(device, a!, b!, x),
};

for (const [name, write] of Object.entries(WRITERS)) {
  deviceTest(`A product right behind ${name} has the bits of a product of its numbers`, (device) => {
    for (const [tokens, width] of [[8, 48], [9, 48], [20, 37], [128, 1030], [129, 40], [257, 72]] as const) {
      const rows = new Rows(device, tokens, width);
      write(rows);
      const found = rows.product();
      assertSameBits(found, rows.productOfCopy(), [tokens, OUTPUTS]);
    }
  });
}

for (const kind of ["silu_mul", "gelu_mul"] as const) {
  deviceTest(`A product right behind one that ends in ${kind} has the bits of a product of its numbers`, (device) => {
    for (const [tokens, width] of [[8, 48], [9, 48], [20, 40], [33, 1032], [64, 200], [65, 48]] as const) {
      const rows = new Rows(device, tokens, width);
      const gates = uploadAs(device, "bf16", normals(new Random(width), 2 * width * width), [2 * width, width]);
      const scratch = device.createTensor("f32", [tokens, 2 * width]);
      fusedMatmul(device, rows.sources[0]!, gates, undefined, rows.x, { ending: { kind, scratch } });
      const found = rows.product();
      assertSameBits(found, rows.productOfCopy(), [tokens, OUTPUTS]);
    }
  });
}

const CHANGES: Readonly<Record<string, Writer>> = {
  "a copy to the device": ({ x, sources: [a] }) => x.write(a!.readFloats()),
  "an operation in place": ({ device, x }) => scale(device, x, 3),
};

for (const [name, change] of Object.entries(CHANGES)) {
  deviceTest(`A product of rows that ${name} has changed since their norm has the bits of the new ones`, (device) => {
    const rows = new Rows(device, 20, 48);
    norm(rows);
    change(rows);
    const found = rows.product();
    assertSameBits(found, rows.productOfCopy(), [20, OUTPUTS]);
  });
}

const KINDS: Readonly<
  Record<string, { dtype: PagedShape["dtype"]; headDim: number; tokens: number; selected: boolean }>
> = {
  "all pages": { dtype: "bf16", headDim: 64, tokens: 70, selected: false },
  "several splits": { dtype: "bf16", headDim: 128, tokens: 1200, selected: false },
  "selected pages": { dtype: "bf16", headDim: 128, tokens: 200, selected: true },
  "f32 pages": { dtype: "f32", headDim: 32, tokens: 70, selected: false },
};

for (const [name, { dtype, headDim, tokens, selected }] of Object.entries(KINDS)) {
  deviceTest(
    `A product right behind attention to ${name} of a batch has the bits of a product of its numbers`,
    (device) => {
      const shape: PagedShape = { dtype, pageSize: 8, numQueryHeads: 4, numKvHeads: 2, headDim };
      for (const batch of [8, 9, 20]) {
        const random = new Random(batch);
        const parts = Array.from({ length: batch }, (_, b) => randomSequence(random, shape, tokens + b));
        const paged = buildPaged(device, shape, parts, random, { maxSequences: batch });
        const { cache, sequences } = paged;
        const rows = new Rows(device, batch, shape.numQueryHeads * headDim);
        const q = device.upload(normals(random, batch * rows.width), [batch, shape.numQueryHeads, headDim]);
        const out = rows.x.heads(shape.numQueryHeads);
        if (selected) {
          const scores = device.createTensor("f32", [batch, shape.numKvHeads, cache.shape.maxPagesPerSequence]);
          cache.attendSparse(0, q, sequences, { scores, selection: emptySelection(paged, 5) }, out);
        } else {
          cache.attend(0, q, sequences, out);
        }
        const found = rows.product();
        assertSameBits(found, rows.productOfCopy(), [batch, OUTPUTS]);
      }
    },
  );
}

deviceTest("A product of some of the rows behind a norm has the bits of these", (device) => {
  const rows = new Rows(device, 40, 48);
  for (const [first, count] of [[0, 12], [12, 28], [39, 1]] as const) {
    norm(rows);
    const part = rows.x.rows(first, count);
    const found = rows.product(part);
    assertSameBits(found, rows.productOfCopy(part), [count, OUTPUTS]);
  }
});

deviceTest("Two products behind one norm have the same bits", (device) => {
  const rows = new Rows(device, 20, 48);
  norm(rows);
  rows.start();
  const second = rows.product();
  norm(rows);
  assertSameBits(rows.product(), second, [20, OUTPUTS]);
});

Deno.test({
  name: "A recorded norm and product read what their sources hold when they run",
  ignore: DEVICE_KIND === "cpu",
  fn: () =>
    withDevice((device) => {
      const rows = new Rows(device, 20, 48);
      norm(rows);
      const first = rows.product();
      const graph = device.record(() => {
        norm(rows);
        rows.start();
      });
      rows.sources[0]!.write(rows.sources[1]!.readFloats());
      graph.launch();
      const found = rows.out.readFloats();
      assertNotEquals(found, first);
      assertSameBits(found, rows.productOfCopy(), [20, OUTPUTS]);
    }),
});
