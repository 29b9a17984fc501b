/** Weights of every dtype, as `ps_weight_write` stores them and `ps_embedding` reads them back. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { NativeError, Status } from "../../ffi/errors.ts";
import { weightWrite } from "../../ffi/ops.ts";
import { BLOCKS, type DType } from "../../ffi/structs.ts";
import { Tensor } from "../../ffi/tensor.ts";
import { BLOCK_TYPES, dequantize, QUANTIZABLE, type Quantizable, quantize } from "../reference/quantized.ts";
import { randomBlocks, readWeight, uploadBlocks } from "../support/blocks.ts";
import { normals } from "../support/cases.ts";
import { assertSameBits } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { encode, FLOAT_TYPES, rounded, uploadAs } from "../support/numbers.ts";

for (const type of BLOCK_TYPES) {
  deviceTest(`${type} rows read back as the reference dequantises them, bit for bit`, (device) => {
    const shape = [37, 2 * BLOCKS[type].numbers] as const;
    const blocks = randomBlocks(type, new Random(7), shape[0] * shape[1]);
    const numbers = readWeight(device, uploadBlocks(device, type, blocks, shape));
    assertSameBits(numbers, dequantize(type, blocks), shape);
  });

  deviceTest(`${type} rows written a few at a time, in any order, lie where they belong`, (device) => {
    const columns = BLOCKS[type].numbers;
    const blocks = randomBlocks(type, new Random(8), 40 * columns);
    const weight = device.createTensor(type, [40, columns]);
    for (const [first, rows] of [[33, 7], [0, 1], [1, 18], [19, 14]] as const) {
      const bytes = BLOCKS[type].bytes;
      weightWrite(device, weight, first, rows, type, blocks.subarray(first * bytes, (first + rows) * bytes));
    }
    assertSameBits(readWeight(device, weight), dequantize(type, blocks), [40, columns]);
  });

  deviceTest(`rows of ${type} that a part of a weight shares with the whole are the same`, (device) => {
    const columns = BLOCKS[type].numbers;
    const blocks = randomBlocks(type, new Random(9), 64 * columns);
    const weight = uploadBlocks(device, type, blocks, [64, columns]);
    const part = dequantize(type, blocks).slice(16 * columns, 48 * columns);
    assertSameBits(readWeight(device, weight.rows(16, 32)), part, [32, columns]);
  });
}

deviceTest("f8 keeps NaN, signed zeros, subnormals and the largest numbers", (device) => {
  const bits = Uint8Array.of(0x7f, 0xff, 0, 0x80, 1, 0x81, 7, 8, 0x7e, 0xfe);
  const block = new Uint8Array(132);
  block.set(bits);
  new DataView(block.buffer).setFloat32(128, 0.75, true);
  const numbers = readWeight(device, uploadBlocks(device, "f8", block, [1, 128]));
  const wanted = [NaN, NaN, 0, -0, 2 ** -9, -(2 ** -9), 7 * 2 ** -9, 2 ** -6, 448, -448].map((x) => 0.75 * x);
  assertEquals([...numbers.subarray(0, 10)], wanted);
});

/** Rows that quantisers find hard: zeros, equal numbers, one sign only, tiny and large numbers. */
function hardRows(random: Random): Float32Array<ArrayBuffer> {
  const rows = [
    new Float32Array(32),
    new Float32Array(32).fill(-3.25),
    normals(random, 32).map(Math.abs),
    normals(random, 32).map((x) => -Math.abs(x)),
    normals(random, 32, 1e-7),
    normals(random, 32, 1e-30),
    normals(random, 32, 9000),
    Float32Array.from({ length: 32 }, (_, i) => i - 16),
  ];
  const out = new Float32Array(32 * rows.length);
  rows.forEach((row, i) => out.set(row, 32 * i));
  return out;
}

/** The bytes of a weight of the CPU build, whose rows lie as they do in a file. */
function quantized(
  device: Device,
  type: Quantizable,
  source: DType,
  bytes: ArrayBufferView<ArrayBuffer>,
  rows: number,
): Float32Array<ArrayBuffer> {
  const columns = bytes.byteLength / BLOCKS[source].bytes / rows;
  const weight = device.createTensor(type, [rows, columns]);
  weightWrite(device, weight, 0, rows, source, bytes);
  return readWeight(device, weight);
}

for (const type of QUANTIZABLE) {
  deviceTest(`f32 rows become the ${type} blocks of the reference quantiser`, (device) => {
    const numbers = normals(new Random(1), 300 * 64, 0.3);
    assertSameBits(quantized(device, type, "f32", numbers, 300), dequantize(type, quantize(type, numbers)), [300, 64]);
  });

  deviceTest(`hard f32 rows become the ${type} blocks of the reference quantiser`, (device) => {
    const numbers = hardRows(new Random(2));
    assertSameBits(quantized(device, type, "f32", numbers, 8), dequantize(type, quantize(type, numbers)), [8, 32]);
  });

  for (const source of ["f16", "bf16"] as const) {
    deviceTest(`${source} rows become the ${type} blocks of the reference quantiser`, (device) => {
      const numbers = rounded(source, normals(new Random(3), 40 * 96));
      const found = quantized(device, type, source, encode(source, numbers), 40);
      assertSameBits(found, dequantize(type, quantize(type, numbers)), [40, 96]);
    });
  }

  for (const wrong of [NaN, Infinity, -1e5]) {
    deviceTest(`${wrong} is refused before anything is quantised to ${type}`, (device) => {
      const weight = device.createTensor(type, [2, 32]);
      const numbers = new Float32Array(64).fill(1);
      numbers[40] = wrong;
      const error = assertThrows(() => weightWrite(device, weight, 0, 2, "f32", numbers), NativeError, "Row 1");
      assertEquals(error.status, Status.InvalidArgument);
      assert(readWeight(device, weight).every((x) => x === 0));
    });
  }
}

for (const target of FLOAT_TYPES) {
  for (const source of FLOAT_TYPES) {
    deviceTest(`${source} rows are rounded to ${target}`, (device) => {
      const numbers = rounded(source, normals(new Random(4), 30 * 20));
      const weight = device.createTensor(target, [30, 20]);
      weightWrite(device, weight, 0, 30, source, encode(source, numbers));
      assertSameBits(readWeight(device, weight), rounded(target, numbers), [30, 20]);
    });
  }
}

deviceTest("rows go between the gaps of a weight whose rows lie apart", (device) => {
  const weight = uploadAs(device, "bf16", new Float32Array(4 * 12).fill(-7), [4, 12]);
  const numbers = Float32Array.from({ length: 10 }, (_, i) => i);
  weightWrite(device, weight.columns(3, 5), 1, 2, "f32", numbers);
  const wanted = new Float32Array(48).fill(-7);
  wanted.set(numbers.subarray(0, 5), 15);
  wanted.set(numbers.subarray(5), 27);
  assertSameBits(readWeight(device, weight), wanted, [4, 12]);
});

deviceTest("a weight of one dimension takes single numbers", (device) => {
  const weight = device.createTensor("f32", [6]);
  weightWrite(device, weight, 2, 3, "bf16", Uint16Array.of(0x3f80, 0x4000, 0x4040));
  assertEquals([...weight.readFloats()], [0, 0, 1, 2, 3, 0]);
});

for (const target of ["q4_k", "q5_k", "q6_k", "f8"] as const) {
  deviceTest(`quantising to ${target} is not supported`, (device) => {
    const weight = device.createTensor(target, [1, 256]);
    const write = (): void => weightWrite(device, weight, 0, 1, "f32", new Float32Array(256));
    assertEquals(assertThrows(write, NativeError, target).status, Status.Unsupported);
  });
}

/** What is refused, and the words that say why. */
const REFUSED: Record<string, [words: string, (device: Device) => void]> = {
  "rows past the end": ["3 rows", (device) => {
    weightWrite(device, device.createTensor("q8_0", [3, 32]), 2, 2, "q8_0", new Uint8Array(68));
  }],
  "a negative first row": ["Rows -1", (device) => {
    weightWrite(device, device.createTensor("f32", [3, 4]), -1, 1, "f32", new Float32Array(4));
  }],
  "no rows": ["lie outside", (device) => {
    weightWrite(device, device.createTensor("f32", [3, 4]), 0, 0, "f32", new Float32Array(0));
  }],
  "a source of too few bytes": ["take 34 bytes", (device) => {
    weightWrite(device, device.createTensor("q8_0", [3, 32]), 0, 1, "q8_0", new Uint8Array(33));
  }],
  "a source of too many bytes": ["take 34 bytes", (device) => {
    weightWrite(device, device.createTensor("q8_0", [3, 32]), 0, 1, "q8_0", new Uint8Array(35));
  }],
  "blocks of another format": ["q4_0", (device) => {
    weightWrite(device, device.createTensor("q8_0", [1, 32]), 0, 1, "q4_0", new Uint8Array(18));
  }],
  "a weight of integers": ["i32", (device) => {
    weightWrite(device, device.createTensor("i32", [1, 32]), 0, 1, "i32", new Uint8Array(128));
  }],
  "rows that end within a block": ["multiple of 256", (device) => {
    const weight = new Tensor(device.createBuffer(4096), "q4_k", [2, 128]);
    weightWrite(device, weight, 0, 1, "q4_k", new Uint8Array(72));
  }],
  "a row stride within a block": ["stride", (device) => {
    const weight = new Tensor(device.createBuffer(4096), "q8_0", [2, 32], 0, 40);
    weightWrite(device, weight, 0, 1, "q8_0", new Uint8Array(34));
  }],
  "a weight that reaches past its buffer": ["past the end", (device) => {
    const weight = new Tensor(device.createBuffer(67), "q8_0", [2, 32]);
    weightWrite(device, weight, 0, 1, "q8_0", new Uint8Array(34));
  }],
};

for (const [what, [words, write]] of Object.entries(REFUSED)) {
  deviceTest(`ps_weight_write refuses ${what}`, (device) => {
    assertEquals(assertThrows(() => write(device), NativeError, words).status, Status.InvalidArgument);
  });
}
