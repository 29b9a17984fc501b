/** Weights of a shape of model that no file contains: random numbers, in any format that the operations read. */
import type { WeightDType, WeightPlan } from "../engine/folder/weight_plan.ts";
import { Weights } from "../engine/weights.ts";
import type { Device } from "../ffi/device.ts";
import { weightWrite } from "../ffi/ops.ts";
import { BLOCKS } from "../ffi/structs.ts";
import { randomBlock, wordsFrom } from "./random_numbers.ts";

/** Where the 16-bit scales of a block lie, in the formats that nothing is quantised to here; all other bytes are random. */
const SCALES: Readonly<Partial<Record<WeightDType, readonly number[]>>> = { q4_k: [0, 2], q5_k: [0, 2], q6_k: [208] };
/** Small enough that activations stay finite. */
const SCALE = 2 ** -14;
const ROWS_AT_ONCE = 1024;

/** Norms of ones; all else repeats random numbers. */
export function randomWeights(device: Device, plan: WeightPlan): Weights {
  const numbers = randomBlock();
  return Weights.fill(device, plan, ({ name, shape, dtype }, target) => {
    const [rows = 1, columns = 1] = shape;
    if (name.endsWith("norm.weight")) {
      return weightWrite(device, target, 0, rows, "bf16", new Uint16Array(rows).fill(0x3f80));
    }
    const rowsAtOnce = Math.min(rows, ROWS_AT_ONCE, Math.floor(numbers.length / columns));
    const blocks = SCALES[dtype] && randomRows(dtype, rowsAtOnce, columns);
    writeRepeatedly(rows, rowsAtOnce, (first, count) => {
      if (blocks) {
        weightWrite(device, target, first, count, dtype, blocks.subarray(0, count * blocks.length / rowsAtOnce));
      } else weightWrite(device, target, first, count, "bf16", numbers.subarray(0, count * columns));
    });
  });
}

function writeRepeatedly(rows: number, atOnce: number, write: (first: number, count: number) => void): void {
  for (let first = 0; first < rows; first += atOnce) write(first, Math.min(atOnce, rows - first));
}

/** Rows of random blocks with scales of {@link SCALE}. */
function randomRows(dtype: WeightDType, rows: number, columns: number): Uint8Array<ArrayBuffer> {
  const { numbers, bytes } = BLOCKS[dtype];
  const next = wordsFrom(2);
  const out = new Uint8Array(rows * columns / numbers * bytes);
  for (let index = 0; index < out.length; index++) out[index] = next() >>> 8;
  const view = new DataView(out.buffer);
  for (let block = 0; block < out.length; block += bytes) {
    for (const place of SCALES[dtype] ?? []) view.setFloat16(block + place, SCALE, true);
  }
  return out;
}
