import { assertThrows } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { NativeError } from "../../ffi/errors.ts";
import { add, fusedMatmul, geluMul, matmul, type ProductJoins, rmsNorm, scale, siluMul } from "../../ffi/ops.ts";
import type { Tensor } from "../../ffi/tensor.ts";
import { geluMul as geluMulReference } from "../reference/gelu_mul.ts";
import { matmul as matmulReference } from "../reference/matmul.ts";
import { rmsNorm as rmsNormReference } from "../reference/rms_norm.ts";
import { siluMul as siluMulReference } from "../reference/silu_mul.ts";
import { BLOCK_TYPES } from "../reference/quantized.ts";
import { randomWeight } from "../support/blocks.ts";
import { normals } from "../support/cases.ts";
import { assertNumbersClose, assertSameBits } from "../support/compare.ts";
import { DEVICE_KIND, deviceTest } from "../support/device.ts";
import { FLOAT_TYPES, type FloatType, rounded, uploadAs } from "../support/numbers.ts";
import { toleranceOf } from "../support/tolerance.ts";

const EPS = 1e-5;
const ENDINGS = ["store", "add", "silu_mul", "gelu_mul"] as const;
type Ending = typeof ENDINGS[number];
/** Inputs and outputs: below a tile, whole tiles and pairs of tiles, beside them, and so many inputs that they are shared out. */
const SIZES = [[40, 6], [64, 32], [100, 66], [1024, 48], [2048, 256], [24576, 32]] as const;
/** Weights in blocks round x: what a product of normed numbers is off by, relative to its size. */
const BLOCKS_RELATIVE = 0.02;

interface Product {
  x: Float32Array<ArrayBuffer>;
  norm: Float32Array<ArrayBuffer> | undefined;
  weight: Float32Array<ArrayBuffer>;
  bias: Float32Array<ArrayBuffer> | undefined;
  /** What out contains before. */
  before: Float32Array<ArrayBuffer>;
  tokens: number;
  inputs: number;
  outputs: number;
}

function randomProduct(tokens: number, inputs: number, outputs: number, normed: boolean, bias: boolean): Product {
  const random = new Random(tokens * 1000 + inputs + outputs);
  return {
    x: normals(random, tokens * inputs, 3),
    norm: normed ? normals(random, inputs) : undefined,
    weight: normals(random, outputs * inputs, 1 / Math.sqrt(inputs)),
    bias: bias ? normals(random, outputs) : undefined,
    before: normals(random, tokens * outputs),
    ...{ tokens, inputs, outputs },
  };
}

function isGated(ending: Ending): boolean {
  return ending === "silu_mul" || ending === "gelu_mul";
}

function columnsOf(rows: Float64Array, width: number, first: number, count: number): Float64Array {
  return Float64Array.from({ length: rows.length / width * count }, (_, i) => {
    return rows[Math.floor(i / count) * width + first + i % count]!;
  });
}

function reference({ x, norm, weight, bias, before, inputs, outputs }: Product, ending: Ending): Float64Array {
  const product = matmulReference(norm ? rmsNormReference(x, norm, EPS) : x, weight, bias, inputs);
  if (ending === "store") return product;
  if (ending === "add") return product.map((one, i) => one + before[i]!);
  const half = outputs / 2;
  const [gate, up] = [columnsOf(product, outputs, 0, half), columnsOf(product, outputs, half, half)];
  return (ending === "silu_mul" ? siluMulReference : geluMulReference)(gate, up);
}

/** Runs the product with a weight on the device. */
function run(device: Device, product: Product, weight: Tensor, ending: Ending, norm: Tensor | undefined): Tensor {
  const { tokens, inputs, outputs, x, bias, before } = product;
  const width = isGated(ending) ? outputs / 2 : outputs;
  const out = device.upload(before.slice(0, tokens * width), [tokens, width]);
  const scratch = (columns: number): Tensor => device.createTensor("f32", [tokens, columns]);
  fusedMatmul(
    device,
    device.upload(x, [tokens, inputs]),
    weight,
    bias && uploadAs(device, "bf16", bias, [outputs]),
    out,
    {
      norm: norm && { weight: norm, eps: EPS, scratch: scratch(inputs) },
      ending: ending === "store" ? undefined : { kind: ending, scratch: scratch(outputs) },
    },
  );
  return out;
}

for (const dtype of FLOAT_TYPES) {
  for (const ending of ENDINGS) {
    for (const tokens of [1, 3]) {
      deviceTest(`fusedMatmul of ${tokens} tokens with ${dtype} weights: norm and ${ending}`, (device) => {
        for (const [inputs, outputs] of SIZES) {
          const product = randomProduct(tokens, inputs, outputs, true, true);
          const weight = uploadAs(device, dtype, product.weight, [outputs, inputs]);
          const norm = uploadAs(device, dtype, product.norm!, [inputs]);
          const found = run(device, product, weight, ending, norm);
          const wanted = reference(asStored(product, dtype), ending);
          assertNumbersClose(found.readFloats(), wanted, found.shape, {
            relative: 2 * toleranceOf({ operation: "matmul", tokens }, dtype).relative,
          });
        }
      });
    }
  }
}

/** Inputs and outputs: fewer than a tile, several tiles, a part of a tile, gates that no instruction takes whole. */
const BATCH_SIZES = [[8, 16], [200, 48], [1024, 1552], [100, 66]] as const;

for (const dtype of FLOAT_TYPES) {
  for (const ending of ENDINGS) {
    deviceTest(`fusedMatmul of a batch with ${dtype} weights: ${ending}`, (device) => {
      for (const tokens of [9, 24, 33, 64, 65]) {
        for (const [inputs, outputs] of BATCH_SIZES) {
          if (outputs > 1000 && tokens !== 33) continue;
          const product = randomProduct(tokens, inputs, outputs, false, outputs !== 48);
          const found = run(
            device,
            product,
            uploadAs(device, dtype, product.weight, [outputs, inputs]),
            ending,
            undefined,
          );
          assertNumbersClose(found.readFloats(), reference(asStored(product, dtype), ending), found.shape, {
            relative: 2 * toleranceOf({ operation: "matmul", tokens }, dtype).relative,
          });
        }
      }
    });
  }
}

/** A product with all that it needs on the device: a copy between two products would make the second forget what the first left for it. */
class Prepared {
  readonly #weight: Tensor;
  readonly #bias: Tensor;
  readonly #scratch: Tensor;

  constructor(readonly device: Device, readonly product: Product, dtype: FloatType) {
    const { tokens, inputs, outputs, weight, bias } = product;
    this.#weight = uploadAs(device, dtype, weight, [outputs, inputs]);
    this.#bias = uploadAs(device, "bf16", bias!, [outputs]);
    this.#scratch = device.createTensor("f32", [tokens, outputs]);
  }

  run(x: Tensor, out: Tensor, kind: Exclude<Ending, "store"> | undefined, joins: ProductJoins): void {
    const ending = kind && { kind, scratch: this.#scratch };
    fusedMatmul(this.device, x, this.#weight, this.#bias, out, { ...joins, ending });
  }
}

type Gated = "silu_mul" | "gelu_mul" | undefined;

/** The last product of a block, which is added to the residual stream, and the first of the next block, which norms that. */
class Blocks {
  readonly hidden: Tensor;
  readonly norm: Tensor;
  readonly #x: Tensor;
  readonly #out: Tensor;
  readonly #gated: Tensor;
  readonly #normed: Tensor;
  readonly #sum: Prepared;
  readonly #next: Prepared;

  constructor(readonly device: Device, readonly dtype: FloatType, tokens: number, inputs: number, width: number) {
    this.#sum = new Prepared(device, randomProduct(tokens, inputs, width, false, true), dtype);
    this.#next = new Prepared(device, randomProduct(tokens, width, 32, true, true), dtype);
    this.#x = device.upload(this.#sum.product.x, [tokens, inputs]);
    this.hidden = device.upload(this.#sum.product.before, [tokens, width]);
    this.norm = uploadAs(device, dtype, this.#next.product.norm!, [width]);
    this.#normed = device.createTensor("f32", [tokens, width]);
    this.#out = device.createTensor("f32", [tokens, 32]);
    this.#gated = device.createTensor("f32", [tokens, 16]);
  }

  /** @param says whether the norm that follows is said */
  sum(says: boolean): void {
    const next = { weight: this.norm, eps: EPS, scratch: this.#normed };
    this.#sum.run(this.#x, this.hidden, "add", { next: says ? next : undefined });
  }

  next(kind?: Gated, weight = this.norm, eps = EPS): Float32Array<ArrayBuffer> {
    const out = kind ? this.#gated : this.#out;
    this.#next.run(this.hidden, out, kind, { norm: { weight, eps, scratch: this.#normed } });
    return out.readFloats();
  }

  wanted(kind?: Gated): Float64Array {
    const x = Float32Array.from(reference(asStored(this.#sum.product, this.dtype), "add"));
    return reference({ ...asStored(this.#next.product, this.dtype), x }, kind ?? "store");
  }
}

/** Tokens, inputs and outputs of the sum. */
const SUM_SIZES = [
  [1, 64, 72],
  [3, 64, 72],
  [9, 8, 2052],
  [24, 1032, 2048],
  [33, 200, 48],
  [48, 2048, 2064],
  [64, 72, 6144],
  [65, 64, 2048],
] as const;

for (const dtype of FLOAT_TYPES) {
  for (const kind of [undefined, "silu_mul", "gelu_mul"] as const) {
    deviceTest(`fusedMatmul norms a sum with ${dtype} weights that said so: ${kind ?? "store"}`, (device) => {
      for (const [tokens, inputs, width] of SUM_SIZES) {
        const blocks = new Blocks(device, dtype, tokens, inputs, width);
        blocks.sum(true);
        const found = blocks.next(kind);
        assertNumbersClose(found, blocks.wanted(kind), [tokens, kind ? 16 : 32], {
          relative: 4 * toleranceOf({ operation: "matmul", tokens }, dtype).relative,
        });
      }
    });
  }
}

const SURPRISES: Readonly<Record<string, (blocks: Blocks) => void>> = {
  "a sum that something has changed since": ({ device, hidden }) => scale(device, hidden, 3),
  "a sum that a copy has changed since": ({ hidden }) => hidden.write(hidden.readFloats().map((one) => one + 1)),
};

for (const [name, change] of Object.entries(SURPRISES)) {
  deviceTest(`fusedMatmul norms ${name} as if nothing had been said`, (device) => {
    const [said, unsaid] = [true, false].map((says) => {
      const blocks = new Blocks(device, "bf16", 20, 64, 2048);
      blocks.sum(says);
      change(blocks);
      return blocks.next();
    });
    assertNumbersClose(said!, unsaid!, [20, 32], { relative: 1e-6 });
  });
}

deviceTest("fusedMatmul takes its own norm and eps where others were said", (device) => {
  const other = uploadAs(device, "bf16", normals(new Random(7), 2048), [2048]);
  for (const [norm, eps] of [[other, EPS], [undefined, 3]] as const) {
    const [said, unsaid] = [true, false].map((says) => {
      const blocks = new Blocks(device, "bf16", 20, 64, 2048);
      blocks.sum(says);
      return blocks.next(undefined, norm, eps);
    });
    assertNumbersClose(said!, unsaid!, [20, 32], { relative: 1e-6 });
  }
});

/** The product of what the device stores: weights and norm in the type, bias in bf16. */
function asStored(product: Product, dtype: FloatType): Product {
  const { norm, weight, bias } = product;
  const stored = { norm: norm && rounded(dtype, norm), weight: rounded(dtype, weight) };
  return { ...product, ...stored, bias: bias && rounded("bf16", bias) };
}

for (const normType of FLOAT_TYPES) {
  deviceTest(`fusedMatmul takes a norm in ${normType} beside weights in bf16 and in blocks`, (device) => {
    const product = randomProduct(1, 512, 64, true, false);
    const norm = uploadAs(device, normType, product.norm!, [512]);
    const stored = { ...asStored(product, "bf16"), norm: rounded(normType, product.norm!) };
    const found = run(device, product, uploadAs(device, "bf16", product.weight, [64, 512]), "silu_mul", norm);
    assertNumbersClose(found.readFloats(), reference(stored, "silu_mul"), [1, 32], { relative: 4e-5 });
    const [blocks, numbers] = randomWeight(device, "q8_0", new Random(3), [64, 512]);
    const rows = run(device, product, blocks, "add", norm);
    assertNumbersClose(rows.readFloats(), reference({ ...stored, weight: numbers }, "add"), [1, 64], {
      relative: BLOCKS_RELATIVE,
    });
  });
}

for (const type of BLOCK_TYPES) {
  for (const ending of ENDINGS) {
    deviceTest(`fusedMatmul with ${type} weights: norm and ${ending}`, (device) => {
      for (const [inputs, outputs] of [[256, 32], [1024, 96], [4096, 64], [512, 40], [16_384, 32]] as const) {
        const product = randomProduct(1, inputs, outputs, true, true);
        const [weight, numbers] = randomWeight(device, type, new Random(inputs), [outputs, inputs]);
        // Sums of a size as in a model: gates beyond 10 would hide errors of the activation.
        const scale = 1 / Math.sqrt(numbers.reduce((sum, one) => sum + one * one, 0) / outputs);
        product.norm = product.norm!.map((one) => one * scale);
        const found = run(device, product, weight, ending, uploadAs(device, "f32", product.norm, [inputs]));
        const wanted = reference({ ...product, weight: numbers, bias: rounded("bf16", product.bias!) }, ending);
        assertNumbersClose(found.readFloats(), wanted, found.shape, { relative: BLOCKS_RELATIVE });
      }
    });
  }
}

for (const ending of ENDINGS) {
  deviceTest(`fusedMatmul gives what the single operations give: ${ending}`, (device) => {
    for (const dtype of FLOAT_TYPES) {
      const [inputs, outputs] = [256, 96];
      const product = randomProduct(1, inputs, outputs, true, false);
      const weight = uploadAs(device, dtype, product.weight, [outputs, inputs]);
      const norm = uploadAs(device, dtype, product.norm!, [inputs]);
      const found = run(device, product, weight, ending, norm).readFloats();
      const normed = device.createTensor("f32", [1, inputs]);
      rmsNorm(device, device.upload(product.x, [1, inputs]), norm, EPS, normed);
      const rows = device.createTensor("f32", [1, outputs]);
      matmul(device, normed, weight, undefined, rows);
      const width = isGated(ending) ? outputs / 2 : outputs;
      const out = device.upload(product.before.slice(0, width), [1, width]);
      if (ending === "add") add(device, out, rows);
      if (ending === "silu_mul") siluMul(device, rows.columns(0, width), rows.columns(width, width), out);
      if (ending === "gelu_mul") geluMul(device, rows.columns(0, width), rows.columns(width, width), out);
      const wanted = (ending === "store" ? rows : out).readFloats();
      if (DEVICE_KIND === "cpu") assertSameBits(found, wanted);
      else assertNumbersClose(found, wanted, [1, width], { relative: 2e-5 });
    }
  });

  deviceTest(`fusedMatmul without a norm: ${ending}`, (device) => {
    const product = randomProduct(1, 320, 64, false, true);
    const weight = uploadAs(device, "bf16", product.weight, [64, 320]);
    const found = run(device, product, weight, ending, undefined);
    assertNumbersClose(found.readFloats(), reference(asStored(product, "bf16"), ending), found.shape, {
      relative: 2e-5,
    });
  });
}

deviceTest("fusedMatmul shows a NaN of x in every output", (device) => {
  const product = randomProduct(1, 128, 32, true, false);
  product.x[77] = NaN;
  const weight = uploadAs(device, "bf16", product.weight, [32, 128]);
  const found = run(device, product, weight, "store", uploadAs(device, "bf16", product.norm!, [128]));
  assertNumbersClose(found.readFloats(), new Float32Array(32).fill(NaN), [1, 32]);
});

deviceTest("fusedMatmul of zeros is the bias", (device) => {
  const product = randomProduct(1, 128, 32, true, true);
  product.x.fill(0);
  const weight = uploadAs(device, "bf16", product.weight, [32, 128]);
  const found = run(device, product, weight, "store", uploadAs(device, "bf16", product.norm!, [128]));
  assertNumbersClose(found.readFloats(), rounded("bf16", product.bias!), [1, 32]);
});

deviceTest("fusedMatmul refuses an odd number of gated rows, and scratch memory that is missing or is x", (device) => {
  const f32 = (...shape: number[]): Tensor => device.createTensor("f32", shape);
  const x = f32(1, 8);
  const refuses = (task: () => void, words: string): void => void assertThrows(task, NativeError, words);
  const ending = { kind: "silu_mul", scratch: f32(1, 5) } as const;
  refuses(() => fusedMatmul(device, x, f32(5, 8), undefined, f32(1, 2), { ending }), "odd number of rows");
  const norm = { weight: f32(8), eps: EPS, scratch: x };
  refuses(() => fusedMatmul(device, x, f32(4, 8), undefined, f32(1, 4), { norm }), "normed must not be x");
  refuses(() => fusedMatmul(device, x, f32(8, 8), undefined, x, {}), "out must be none of x");
  const call = (ending: number, product?: Tensor, next?: Tensor): void =>
    device.check(
      device.native.ps_fused_matmul(
        ...[device.pointer, x.struct, null, 0, f32(4, 8).struct, null, ending, null] as const,
        product?.struct ?? null,
        f32(1, 4).struct,
        ...[next?.struct ?? null, next?.struct ?? null] as const,
      ),
    );
  refuses(() => call(1), "product must be NULL for PS_STORE, and for no other ending");
  refuses(() => call(0, f32(1, 4)), "product must be NULL for PS_STORE");
  refuses(() => call(4, f32(1, 4)), "The ending is unknown");
  refuses(() => call(0, undefined, f32(1, 4)), "next_norm must be NULL unless the ending is PS_ADD");
  refuses(() => call(1, f32(1, 4), f32(4)), "next_normed");
  const both = { weight: f32(4), eps: EPS, scratch: f32(1, 4) };
  refuses(
    () =>
      fusedMatmul(device, x, f32(4, 8), undefined, f32(1, 4), {
        ending: { kind: "add", scratch: both.scratch },
        next: both,
      }),
    "next_normed must be neither out nor product",
  );
});
