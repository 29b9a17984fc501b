import { Random } from "../../engine/sample/random.ts";
import { rope, type RopeScale, ropeTable } from "../../ffi/ops.ts";
import { rope as reference, ropeTable as referenceTable } from "../reference/rope.ts";
import { normals } from "../support/cases.ts";
import { assertNumbersClose } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";

const POSITIONS = Int32Array.of(0, 1, 2, 17, 4095, 16384, 131071, 1_000_000);

function frequencies(pairs: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: pairs }, (_, i) => 10_000 ** (-i / pairs));
}

const SCALES: Record<string, RopeScale> = {
  "no scale": { scale: 1, positionBeta: 0, positionOrigin: 0 },
  "a scale": { scale: 1.25, positionBeta: 0, positionOrigin: 0 },
  "a scale that grows with the position": { scale: 1, positionBeta: 0.1, positionOrigin: 16384 },
};

for (const [name, scale] of Object.entries(SCALES)) {
  deviceTest(`ropeTable with ${name} gives cosines, then sines, up to a million tokens`, (device) => {
    const pairs = 24;
    const out = device.createTensor("f32", [POSITIONS.length, 2 * pairs]);
    const positions = device.upload(POSITIONS, [POSITIONS.length]);
    ropeTable(device, positions, device.upload(frequencies(pairs), [pairs]), scale, out);
    const wanted = referenceTable(POSITIONS, frequencies(pairs), scale);
    assertNumbersClose(out.readFloats(), wanted, out.shape, { relative: 1e-6 });
  });
}

for (const [headDim, pairs] of [[16, 8], [48, 24], [64, 20], [80, 40], [128, 64], [256, 128], [64, 1]] as const) {
  for (const heads of [1, 3]) {
    deviceTest(`rope rotates ${2 * pairs} of ${headDim} numbers of ${heads} heads`, (device) => {
      const tokens = 5;
      const x = normals(new Random(headDim), tokens * heads * headDim);
      const table = normals(new Random(pairs), tokens * 2 * pairs);
      const tensor = device.upload(x, [tokens, heads, headDim]);
      rope(device, tensor, device.upload(table, [tokens, 2 * pairs]));
      assertNumbersClose(tensor.readFloats(), reference(x, table, heads, headDim, pairs), tensor.shape);
    });
  }
}

deviceTest("rope rotates the columns of a wider tensor and leaves the others", (device) => {
  const [tokens, heads, headDim, pairs] = [4, 2, 16, 8];
  const x = normals(new Random(3), tokens * 80);
  const table = normals(new Random(4), tokens * 2 * pairs);
  const tensor = device.upload(x, [tokens, 80]);
  rope(device, tensor.columns(24, heads * headDim).heads(heads), device.upload(table, [tokens, 2 * pairs]));
  const wanted = Float64Array.from(x);
  for (let t = 0; t < tokens; t++) {
    const row = table.subarray(t * 2 * pairs, (t + 1) * 2 * pairs);
    const slice = x.subarray(t * 80 + 24, t * 80 + 24 + heads * headDim);
    wanted.set(reference(slice, row, heads, headDim, pairs), t * 80 + 24);
  }
  assertNumbersClose(tensor.readFloats(), wanted, [tokens, 80]);
});
