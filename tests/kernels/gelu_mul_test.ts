import { Random } from "../../engine/sample/random.ts";
import { geluMul } from "../../ffi/ops.ts";
import { geluMul as reference } from "../reference/gelu_mul.ts";
import { normals } from "../support/cases.ts";
import { assertNumbersClose } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";

for (const [tokens, width] of [[1, 1], [3, 37], [2, 64], [50, 1000]] as const) {
  deviceTest(`geluMul of [${tokens}, ${width}]`, (device) => {
    const random = new Random(width);
    const [gate, up] = [normals(random, tokens * width, 4), normals(random, tokens * width)];
    const out = device.createTensor("f32", [tokens, width]);
    geluMul(device, device.upload(gate, out.shape), device.upload(up, out.shape), out);
    assertNumbersClose(out.readFloats(), reference(gate, up), out.shape);
  });
}

const SPECIAL: Record<string, number[]> = {
  "small and large": [0, -0, 1e-30, -1e-30, 9, -9, 200, -200],
  "as large as an f32 can be": [-3.4e38, 3.4e38, -1e20, 1e20],
  "infinite and NaN": [Infinity, NaN, 1],
};

for (const [name, special] of Object.entries(SPECIAL)) {
  deviceTest(`geluMul of gates that are ${name}`, (device) => {
    const gate = Float32Array.from({ length: 40 }, (_, i) => special[i % special.length]!);
    const up = new Float32Array(40).fill(1);
    const out = device.createTensor("f32", [1, 40]);
    geluMul(device, device.upload(gate, [1, 40]), device.upload(up, [1, 40]), out);
    assertNumbersClose(out.readFloats(), reference(gate, up), [40], { absolute: 1e-30 });
  });
}
