/** Products with weights in blocks, against products of the dequantised weights, within the bound that `pagesift.h` states. */
import { assertEquals, assertThrows } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import { NativeError, Status } from "../../ffi/errors.ts";
import { argmax, matmul, rmsNorm } from "../../ffi/ops.ts";
import { BLOCKS } from "../../ffi/structs.ts";
import { Tensor } from "../../ffi/tensor.ts";
import { matmul as reference } from "../reference/matmul.ts";
import { BLOCK_TYPES, type BlockType } from "../reference/quantized.ts";
import { randomBlocks, randomWeight, uploadBlocks } from "../support/blocks.ts";
import { normals } from "../support/cases.ts";
import { assertNumbersClose } from "../support/compare.ts";
import { DEVICE_KIND, deviceName, deviceTest } from "../support/device.ts";
import { uploadAs } from "../support/numbers.ts";

const TOKENS = [1, 2, 3, 4, 5, 8, 9, 16, 17, 64, 65];
const ROUNDED_NUMBERS = 32;
/** CUDA and AMX round x and weights to bf16 for more tokens, so whole numbers are exact for fewer only. */
const MOST_FINE_TOKENS = 16;
const ROUNDS_MANY = DEVICE_KIND === "cuda" || deviceName() === "amx";
const EXACT_TOKENS = DEVICE_KIND === "cuda" ? [1, 3] : [1, 3, 16, ...(ROUNDS_MANY ? [] : [20])];

/**
 * The largest error of each output `[T, N]`: that of rounding x to 8 bits, per block of 32 numbers half a step for every number, or of rounding
 * both factors to bf16; and that of sums in f32.
 */
function bounds(x: Float32Array, weight: Float32Array, inputs: number): Float64Array {
  const magnitudes = weight.map(Math.abs);
  const all = reference(x.map(Math.abs), magnitudes, undefined, inputs);
  if (ROUNDS_MANY && x.length > MOST_FINE_TOKENS * inputs) return all.map((one) => one / 127);
  const half = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += ROUNDED_NUMBERS) {
    const largest = Math.max(...x.subarray(at, at + ROUNDED_NUMBERS).map(Math.abs));
    half.fill(largest / 254, at, at + ROUNDED_NUMBERS);
  }
  return reference(half, magnitudes, undefined, inputs).map((bound, i) => bound * 1.0001 + 1e-6 * all[i]!);
}

function assertWithin(found: Float32Array, wanted: Float64Array, bound: Float64Array): void {
  const outside = found.findIndex((x, i) => !(Math.abs(x - wanted[i]!) <= bound[i]!));
  assertEquals(outside, -1, `Output ${outside} is ${found[outside]}, wanted ${wanted[outside]} ± ${bound[outside]}`);
}

/** Inputs in blocks, and outputs. */
const SIZES: Readonly<Record<number, readonly (readonly [inputs: number, outputs: number])[]>> = {
  32: [[32, 1], [64, 5], [96, 33], [576, 48], [1056, 19]],
  128: [[128, 3], [640, 35]],
  256: [[256, 3], [768, 35]],
};

for (const type of BLOCK_TYPES) {
  for (const tokens of TOKENS) {
    deviceTest(`matmul of ${tokens} tokens with ${type} weights stays within its bound`, (device) => {
      for (const [inputs, outputs] of SIZES[BLOCKS[type].numbers]!) {
        const random = new Random(tokens * 1000 + inputs);
        const x = normals(random, tokens * inputs);
        const [weight, numbers] = randomWeight(device, type, random, [outputs, inputs]);
        const out = device.upload(new Float32Array(tokens * outputs).fill(NaN), [tokens, outputs]);
        matmul(device, device.upload(x, [tokens, inputs]), weight, undefined, out);
        const wanted = reference(x, numbers, undefined, inputs);
        assertWithin(out.readFloats(), wanted, bounds(x, numbers, inputs));
      }
    });
  }

  for (const tokens of EXACT_TOKENS) {
    deviceTest(`matmul of ${tokens} tokens with ${type} weights takes whole numbers exactly`, (device) => {
      const [inputs, outputs] = [512, 21];
      const random = new Random(tokens);
      const x = Float32Array.from(
        { length: tokens * inputs },
        (_, i) => i % 32 === 0 ? 127 : Math.floor(random.nextFloat() * 255) - 127,
      );
      const [weight, numbers] = randomWeight(device, type, random, [outputs, inputs]);
      const out = device.createTensor("f32", [tokens, outputs]);
      matmul(device, device.upload(x, [tokens, inputs]), weight, undefined, out);
      assertNumbersClose(out.readFloats(), reference(x, numbers, undefined, inputs), [tokens, outputs], {
        relative: device.backend === "cpu" ? 2e-5 : 2e-3, // CUDA rounds weights to f16
      });
    });
  }

  for (const tokens of [1, 3, 20]) {
    deviceTest(`matmul of ${tokens} tokens with ${type} weights adds a bias`, (device) => {
      const [inputs, outputs] = [256, 37];
      const random = new Random(tokens);
      const [weight] = randomWeight(device, type, random, [outputs, inputs]);
      const bias = normals(random, outputs);
      const out = device.createTensor("f32", [tokens, outputs]);
      const zeros = device.createTensor("f32", [tokens, inputs]);
      matmul(device, zeros, weight, uploadAs(device, "bf16", bias, [outputs]), out);
      const rows = out.readFloats();
      assertNumbersClose(rows.subarray(0, outputs), bias, [outputs], { relative: 2 ** -8 });
      assertEquals(rows.subarray(-outputs), rows.subarray(0, outputs));
    });

    deviceTest(
      `matmul of ${tokens} tokens with ${type} weights reads columns of a wide x and part of the rows`,
      (device) => {
        const [inputs, outputs, wide] = [256, 37, 300];
        const random = new Random(tokens + 1);
        const x = normals(random, tokens * wide);
        const [weight, numbers] = randomWeight(device, type, random, [53, inputs]);
        const out = device.upload(new Float32Array(tokens * wide).fill(-7), [tokens, wide]);
        const columns = device.upload(x, [tokens, wide]).columns(11, inputs);
        matmul(device, columns, weight.rows(16, outputs), undefined, out.columns(50, outputs));
        const cut = new Float32Array(tokens * inputs);
        for (let t = 0; t < tokens; t++) cut.set(x.subarray(t * wide + 11, t * wide + 11 + inputs), t * inputs);
        const part = numbers.slice(16 * inputs, (16 + outputs) * inputs);
        const found = out.readFloats();
        const inside = found.filter((_, i) => i % wide >= 50 && i % wide < 50 + outputs);
        assertWithin(inside, reference(cut, part, undefined, inputs), bounds(cut, part, inputs));
        assertEquals(found.filter((one) => one === -7).length, tokens * (wide - outputs));
      },
    );

    deviceTest(
      `matmul of ${tokens} tokens with ${type} weights shows a NaN in its own row and in no other`,
      (device) => {
        const [inputs, outputs] = [256, 21];
        const x = new Float32Array(tokens * inputs).fill(1);
        x[tokens * inputs - 1] = NaN;
        const [weight] = randomWeight(device, type, new Random(3), [outputs, inputs]);
        const out = device.createTensor("f32", [tokens, outputs]);
        matmul(device, device.upload(x, [tokens, inputs]), weight, undefined, out);
        const rows = out.readFloats();
        assertEquals(rows.findIndex(Number.isNaN), (tokens - 1) * outputs);
        assertEquals(rows.filter(Number.isNaN).length, outputs);
      },
    );
  }

  deviceTest(`no other operand may be ${type}`, (device) => {
    const { numbers } = BLOCKS[type];
    const blocks = uploadBlocks(device, type, randomBlocks(type, new Random(1), numbers), [1, numbers]);
    const floats = device.createTensor("f32", [1, numbers]);
    const one = device.createTensor("f32", [1, 1]);
    const flat = new Tensor(blocks.buffer, type, [numbers]);
    for (
      const run of [
        (): void => matmul(device, blocks, floats, undefined, one),
        (): void => matmul(device, floats, floats, flat, one),
        (): void => rmsNorm(device, floats, flat, 1e-5, floats),
        (): void => argmax(device, blocks, device.createTensor("i32", [1])),
      ]
    ) {
      assertEquals(assertThrows(run, NativeError, type).status, Status.InvalidArgument);
    }
  });
}

for (const type of ["q8_0", "q4_k", "f8"] as const satisfies BlockType[]) {
  deviceTest(`matmul with ${type} weights refuses rows that end within a block`, (device) => {
    const inputs = BLOCKS[type].numbers / 2;
    const weight = new Tensor(device.createBuffer(4096), type, [2, inputs]);
    const x = device.createTensor("f32", [1, inputs]);
    const multiply = (): void => matmul(device, x, weight, undefined, device.createTensor("f32", [1, 2]));
    assertEquals(assertThrows(multiply, NativeError, `${2 * inputs}`).status, Status.InvalidArgument);
  });
}
