/** The same bits from the same numbers, whatever the device did before. */
import { assertSameBits } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { RUNS } from "../support/runs.ts";

for (const [name, run] of Object.entries(RUNS)) {
  deviceTest(`${name} gives the same bits twice`, (device) => assertSameBits(run(device), run(device)));
}
