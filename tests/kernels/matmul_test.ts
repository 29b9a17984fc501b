import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { matmul } from "../../ffi/ops.ts";
import { matmul as reference } from "../reference/matmul.ts";
import { normals } from "../support/cases.ts";
import { assertNumbersClose, assertSameBits } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { FLOAT_TYPES, type FloatType, rounded, uploadAs } from "../support/numbers.ts";
import { toleranceOf } from "../support/tolerance.ts";

const TOKENS = [1, 2, 3, 4, 7, 8, 9, 16, 17, 64, 65, 128, 129, 256, 257];
/** Inputs and outputs: below a vector, beside multiples of it, and past the depth of a panel. */
const SIZES = [[1, 1], [5, 3], [31, 33], [64, 48], [100, 65], [517, 70], [1030, 19]] as const;

interface Shape {
  tokens: number;
  inputs: number;
  outputs: number;
}

/** Runs the product and gives what came out and what should. */
function multiply(
  device: Device,
  dtype: FloatType,
  shape: Shape,
  bias: boolean,
): [Float32Array<ArrayBuffer>, Float64Array] {
  const { tokens, inputs, outputs } = shape;
  const random = new Random(tokens * 1000 + inputs);
  const x = normals(random, tokens * inputs);
  const weight = normals(random, outputs * inputs, 0.1);
  const offsets = bias ? normals(random, outputs) : undefined;
  const out = device.upload(new Float32Array(tokens * outputs).fill(NaN), [tokens, outputs]);
  matmul(
    device,
    device.upload(x, [tokens, inputs]),
    uploadAs(device, dtype, weight, [outputs, inputs]),
    offsets && uploadAs(device, dtype, offsets, [outputs]),
    out,
  );
  const wanted = reference(x, rounded(dtype, weight), offsets && rounded(dtype, offsets), inputs);
  return [out.readFloats(), wanted];
}

for (const dtype of FLOAT_TYPES) {
  for (const tokens of TOKENS) {
    deviceTest(`matmul of ${tokens} tokens with ${dtype} weights of every size`, (device) => {
      for (const [inputs, outputs] of SIZES) {
        const [found, wanted] = multiply(device, dtype, { tokens, inputs, outputs }, false);
        assertNumbersClose(found, wanted, [tokens, outputs], toleranceOf({ operation: "matmul", tokens }, dtype));
      }
    });
  }

  for (const tokens of [1, 3, 9, 17]) {
    deviceTest(`matmul of ${tokens} tokens adds a ${dtype} bias`, (device) => {
      const [found, wanted] = multiply(device, dtype, { tokens, inputs: 48, outputs: 37 }, true);
      assertNumbersClose(found, wanted, [tokens, 37], toleranceOf({ operation: "matmul", tokens }, dtype));
    });
  }
}

for (const tokens of [9, 16, 24, 33, 47, 55, 64, 80, 128]) {
  deviceTest(`matmul of ${tokens} tokens with bf16 weights whose inputs are shared out`, (device) => {
    for (const [inputs, outputs] of [[1096, 130], [2048, 257], [72, 40]] as const) {
      const [found, wanted] = multiply(device, "bf16", { tokens, inputs, outputs }, outputs === 257);
      assertNumbersClose(found, wanted, [tokens, outputs], toleranceOf({ operation: "matmul", tokens }, "bf16"));
    }
  });
}

/** Inputs and outputs: fewer than a tile, tiles shared by two blocks, a part of a tile, and more tiles than multiprocessors. */
const BATCH_SIZES = [[8, 4], [72, 40], [1096, 132], [2048, 260], [520, 6148], [64, 26_000]] as const;

for (const dtype of ["f16", "bf16"] as const) {
  for (const tokens of [9, 16, 17, 24, 32, 40, 64]) {
    deviceTest(`matmul of ${tokens} tokens with ${dtype} weights in tiles of every kind`, (device) => {
      for (const [inputs, outputs] of BATCH_SIZES) {
        if (inputs * outputs > 1e6 && tokens % 8 !== 1) continue;
        const [found, wanted] = multiply(device, dtype, { tokens, inputs, outputs }, outputs === 260);
        assertNumbersClose(found, wanted, [tokens, outputs], toleranceOf({ operation: "matmul", tokens }, dtype));
      }
    });
  }
}

deviceTest("matmul of more tokens and outputs than one thread takes at a time", (device) => {
  const [tokens, outputs] = [545, 1060];
  const [found, wanted] = multiply(device, "bf16", { tokens, inputs: 72, outputs }, false);
  assertNumbersClose(found, wanted, [tokens, outputs], toleranceOf({ operation: "matmul", tokens }, "bf16"));
});

for (const tokens of [1, 4, 20]) {
  deviceTest(`matmul of ${tokens} tokens reads and writes columns of wider tensors`, (device) => {
    const [inputs, outputs, wide] = [40, 21, 90];
    const random = new Random(tokens);
    const x = normals(random, tokens * wide);
    const weight = normals(random, outputs * wide);
    const out = device.upload(new Float32Array(tokens * wide).fill(-7), [tokens, wide]);
    matmul(
      device,
      device.upload(x, [tokens, wide]).columns(11, inputs),
      device.upload(weight, [outputs, wide]).columns(30, inputs),
      undefined,
      out.columns(50, outputs),
    );
    const cut = (numbers: Float32Array, rows: number, first: number): number[] =>
      Array.from({ length: rows * inputs }, (_, i) => numbers[Math.floor(i / inputs) * wide + first + i % inputs]!);
    const product = reference(cut(x, tokens, 11), cut(weight, outputs, 30), undefined, inputs);
    const wanted = new Float64Array(tokens * wide).fill(-7);
    for (let t = 0; t < tokens; t++) wanted.set(product.subarray(t * outputs, (t + 1) * outputs), t * wide + 50);
    assertNumbersClose(out.readFloats(), wanted, [tokens, wide]);
  });

  deviceTest(`matmul of ${tokens} tokens shows a NaN in its own row and in no other`, (device) => {
    const [inputs, outputs] = [40, 21];
    const x = new Float32Array(tokens * inputs).fill(1);
    x[tokens * inputs - 1] = NaN;
    const weight = new Float32Array(outputs * inputs).fill(0.5);
    const out = device.createTensor("f32", [tokens, outputs]);
    matmul(device, device.upload(x, [tokens, inputs]), device.upload(weight, [outputs, inputs]), undefined, out);
    assertNumbersClose(out.readFloats(), reference(x, weight, undefined, inputs), [tokens, outputs]);
  });
}

for (const [inputs, outputs] of [[517, 333], [2048, 260]] as const) {
  deviceTest(`matmul of the same numbers gives the same bits twice, ${outputs} outputs`, (device) => {
    const runs = [0, 1].map(() => multiply(device, "bf16", { tokens: 17, inputs, outputs }, true)[0]);
    assertSameBits(runs[0]!, runs[1]!, [17, outputs]);
  }, { threads: 3 });
}
