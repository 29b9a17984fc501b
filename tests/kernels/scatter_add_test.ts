import { Random } from "../../engine/sample/random.ts";
import { scatterAdd } from "../../ffi/ops.ts";
import { scatterAdd as reference } from "../reference/scatter_add.ts";
import { normals, shuffled } from "../support/cases.ts";
import { assertNumbersClose } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";

for (const [count, width, tokens] of [[1, 1, 1], [3, 37, 9], [50, 1000, 64]] as const) {
  deviceTest(`scatterAdd of ${count} rows of ${width} to ${tokens}`, (device) => {
    const random = new Random(width);
    const [x, weights, before] = [count * width, count, tokens * width].map((size) => normals(random, size));
    const rows = Int32Array.from(shuffled(random, tokens).slice(0, count));
    const out = device.upload(before!, [tokens, width]);
    scatterAdd(
      device,
      device.upload(x!, [count, width]),
      device.upload(rows, [count]),
      device.upload(weights!, [count]),
      out,
    );
    assertNumbersClose(out.readFloats(), reference(x!, rows, weights!, before!), [tokens, width]);
  });
}
