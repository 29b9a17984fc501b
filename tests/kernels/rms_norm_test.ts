import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { NativeError, Status } from "../../ffi/errors.ts";
import { addRmsNorm, rmsNorm } from "../../ffi/ops.ts";
import { rmsNorm as reference } from "../reference/rms_norm.ts";
import { normals } from "../support/cases.ts";
import { assertNumbersClose, assertSameBits } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { FLOAT_TYPES, type FloatType, rounded, uploadAs } from "../support/numbers.ts";

const EPS = 1e-6;

function check(device: Device, dtype: FloatType, shape: readonly number[], inPlace: boolean): void {
  const random = new Random(shape.length);
  const width = shape.at(-1)!;
  const x = normals(random, shape.reduce((a, b) => a * b), 3);
  const weight = normals(random, width);
  const input = device.upload(x, shape);
  const out = inPlace ? input : device.createTensor("f32", shape);
  rmsNorm(device, input, uploadAs(device, dtype, weight, [width]), EPS, out);
  assertNumbersClose(out.readFloats(), reference(x, rounded(dtype, weight), EPS), shape);
}

for (const dtype of FLOAT_TYPES) {
  for (const shape of [[1, 1], [3, 37], [2, 16], [40, 1027], [3, 5, 48], [2, 3, 7]]) {
    deviceTest(`rmsNorm of [${shape}] with a ${dtype} weight`, (device) => check(device, dtype, shape, false));
  }
  deviceTest(`rmsNorm with a ${dtype} weight may be in place`, (device) => check(device, dtype, [9, 4, 80], true));
}

deviceTest("rmsNorm reads and writes the columns of a wider tensor", (device) => {
  const [tokens, width, heads] = [5, 24, 2];
  const x = normals(new Random(1), tokens * 100);
  const input = device.upload(x, [tokens, 100]);
  const weight = Float32Array.from({ length: width }, (_, i) => i);
  const view = input.columns(30, heads * width).heads(heads);
  rmsNorm(device, view, device.upload(weight, [width]), EPS, view);
  const wanted = Float64Array.from(x);
  for (let t = 0; t < tokens; t++) {
    wanted.set(reference(x.subarray(t * 100 + 30, t * 100 + 30 + heads * width), weight, EPS), t * 100 + 30);
  }
  assertNumbersClose(input.readFloats(), wanted, [tokens, 100]);
});

deviceTest("rmsNorm of zeros is zero", (device) => {
  const out = device.createTensor("f32", [2, 20]);
  rmsNorm(device, device.createTensor("f32", [2, 20]), device.upload(new Float32Array(20).fill(2), [20]), EPS, out);
  assertNumbersClose(out.readFloats(), new Float32Array(40), [2, 20]);
});

deviceTest("rmsNorm shows a NaN in its own row and in no other", (device) => {
  const x = new Float32Array(3 * 33).fill(1);
  x[33 + 32] = NaN;
  const weight = new Float32Array(33).fill(1);
  const out = device.createTensor("f32", [3, 33]);
  rmsNorm(device, device.upload(x, [3, 33]), device.upload(weight, [33]), EPS, out);
  assertNumbersClose(out.readFloats(), reference(x, weight, EPS), [3, 33]);
});

for (const dtype of FLOAT_TYPES) {
  for (const [tokens, width] of [[1, 1], [3, 37], [9, 256], [5, 1027], [2, 4096]] as const) {
    deviceTest(`addRmsNorm of [${tokens}, ${width}] with a ${dtype} weight adds, then norms`, (device) => {
      const random = new Random(width);
      const x = normals(random, tokens * width);
      const y = normals(random, tokens * width);
      const weight = normals(random, width);
      const input = device.upload(x, [tokens, width]);
      const out = device.createTensor("f32", [tokens, width]);
      addRmsNorm(device, input, device.upload(y, [tokens, width]), uploadAs(device, dtype, weight, [width]), EPS, out);
      const sum = x.map((number, i) => number + y[i]!);
      assertSameBits(input.readFloats(), sum);
      assertNumbersClose(out.readFloats(), reference(sum, rounded(dtype, weight), EPS), [tokens, width]);
    });
  }
}

deviceTest("addRmsNorm refuses to write over what it adds", (device) => {
  const [x, y] = [0, 1].map(() => device.createTensor("f32", [2, 8]));
  const weight = device.createTensor("f32", [8]);
  const error = assertThrows(() => addRmsNorm(device, x!, y!, weight, EPS, y!), NativeError);
  assertEquals(error.status, Status.InvalidArgument);
  assertStringIncludes(error.message, "x nor y");
});
