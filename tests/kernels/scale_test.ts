import { Random } from "../../engine/sample/random.ts";
import { scale } from "../../ffi/ops.ts";
import { scale as reference } from "../reference/scale.ts";
import { normals } from "../support/cases.ts";
import { assertNumbersClose } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";

for (const [tokens, width] of [[1, 1], [3, 37], [64, 1000]] as const) {
  deviceTest(`scale of [${tokens}, ${width}]`, (device) => {
    const x = normals(new Random(width), tokens * width);
    const tensor = device.upload(x, [tokens, width]);
    scale(device, tensor, 0.22);
    assertNumbersClose(tensor.readFloats(), reference(x, 0.22), [tokens, width], { relative: 1e-6 });
  });
}

deviceTest("scale leaves the columns beside its view", (device) => {
  const tensor = device.upload(new Float32Array(12).fill(1), [3, 4]);
  scale(device, tensor.columns(1, 2), 2);
  assertNumbersClose(tensor.readFloats(), [1, 2, 2, 1, 1, 2, 2, 1, 1, 2, 2, 1], [3, 4]);
});
