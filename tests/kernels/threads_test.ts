/** The same bits on any number of threads. */
import { assertSameBits } from "../support/compare.ts";
import { DEVICE_KIND, withDevice } from "../support/device.ts";
import { type Run, RUNS } from "../support/runs.ts";

function runOn(threads: number, run: Run): Float32Array<ArrayBuffer> {
  let out = new Float32Array();
  withDevice((device) => out = run(device), { threads });
  return out;
}

for (const [name, run] of Object.entries(RUNS)) {
  for (const threads of [2, 5]) {
    Deno.test({
      name: `${name} on ${threads} threads gives the bits of one thread`,
      ignore: DEVICE_KIND !== "cpu",
      fn: () => assertSameBits(runOn(threads, run), runOn(1, run)),
    });
  }
}
