import { Random } from "../../engine/sample/random.ts";
import { embedding } from "../../ffi/ops.ts";
import { embedding as reference } from "../reference/embedding.ts";
import { integerBelow, normals } from "../support/cases.ts";
import { assertSameBits } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { FLOAT_TYPES, rounded, uploadAs } from "../support/numbers.ts";

const VOCABULARY = 50;

for (const dtype of FLOAT_TYPES) {
  for (const [tokens, width] of [[1, 1], [7, 37], [3, 64], [300, 160]] as const) {
    deviceTest(`embedding copies ${tokens} rows of ${width} ${dtype} numbers exactly`, (device) => {
      const random = new Random(width);
      const table = normals(random, VOCABULARY * width);
      const ids = Int32Array.from({ length: tokens }, () => integerBelow(random, VOCABULARY));
      ids[0] = VOCABULARY - 1;
      const out = device.createTensor("f32", [tokens, width]);
      embedding(device, device.upload(ids, [tokens]), uploadAs(device, dtype, table, [VOCABULARY, width]), out);
      assertSameBits(out.readFloats(), Float32Array.from(reference(ids, rounded(dtype, table), width)), [
        tokens,
        width,
      ]);
    });
  }

  deviceTest(`embedding keeps infinities, NaN, subnormals and the largest numbers of ${dtype}`, (device) => {
    const tiny = { f32: 1e-45, f16: 2 ** -24, bf16: 1e-40 }[dtype];
    const row = rounded(dtype, [Infinity, -Infinity, NaN, tiny, -tiny, 65504, -0, 1e-7]);
    const table = Float32Array.of(...row, ...row, ...row);
    const out = device.createTensor("f32", [1, table.length]);
    embedding(
      device,
      device.upload(Int32Array.of(0), [1]),
      uploadAs(device, dtype, table, [1, table.length]),
      out,
    );
    const numbers = out.readFloats();
    assertSameBits(numbers.filter((x) => !Number.isNaN(x)), table.filter((x) => !Number.isNaN(x)));
  });
}
