import { Random } from "../../engine/sample/random.ts";
import { add } from "../../ffi/ops.ts";
import { add as reference } from "../reference/add.ts";
import { normals } from "../support/cases.ts";
import { assertNumbersClose } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";

for (const [tokens, width] of [[1, 1], [3, 37], [64, 1000]] as const) {
  deviceTest(`add of [${tokens}, ${width}]`, (device) => {
    const random = new Random(width);
    const [x, y] = [normals(random, tokens * width), normals(random, tokens * width)];
    const tensor = device.upload(x, [tokens, width]);
    add(device, tensor, device.upload(y, [tokens, width]));
    assertNumbersClose(tensor.readFloats(), reference(x, y), [tokens, width], { relative: 1e-6 });
  });
}

deviceTest("add leaves the columns beside its view", (device) => {
  const tensor = device.upload(new Float32Array(12).fill(1), [3, 4]);
  add(device, tensor.columns(1, 2), device.upload(new Float32Array(6).fill(2), [3, 2]));
  assertNumbersClose(tensor.readFloats(), [1, 3, 3, 1, 1, 3, 3, 1, 1, 3, 3, 1], [3, 4]);
});
