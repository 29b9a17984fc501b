import { assertEquals } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { argmax } from "../../ffi/ops.ts";
import { argmax as reference } from "../reference/argmax.ts";
import { normals } from "../support/cases.ts";
import { deviceTest } from "../support/device.ts";

function argmaxOf(device: Device, x: Float32Array<ArrayBuffer>, width: number): number[] {
  const tokens = x.length / width;
  const out = device.createTensor("i32", [tokens]);
  argmax(device, device.upload(x, [tokens, width]), out);
  return Array.from(out.readInts());
}

for (const [tokens, width] of [[1, 1], [4, 7], [5, 37], [3, 64], [3, 151_936]] as const) {
  deviceTest(`argmax of [${tokens}, ${width}]`, (device) => {
    const x = normals(new Random(width), tokens * width);
    assertEquals(argmaxOf(device, x, width), reference(x, width));
  });
}

/** A row of 40, so that every place of a vector and the tail after it is tried. */
function row(changes: Record<number, number>, fill = 0): Float32Array<ArrayBuffer> {
  const numbers = new Float32Array(40).fill(fill);
  for (const [index, value] of Object.entries(changes)) numbers[Number(index)] = value;
  return numbers;
}

const CASES: Record<string, [Float32Array<ArrayBuffer>, number]> = {
  "takes the lowest index of equal numbers": [row({ 11: 5, 12: 5, 39: 5 }), 11],
  "takes index 0 when all numbers are equal": [row({}, -3), 0],
  "finds the largest of negative numbers": [row({ 38: -1 }, -2), 38],
  "gives -1 for a row with a NaN beside the largest": [row({ 3: 9, 7: NaN }), -1],
  "gives -1 for a row with a NaN in the tail": [row({ 3: 9, 39: NaN }), -1],
  "gives -1 for an infinite maximum": [row({ 20: Infinity }), -1],
  "gives -1 when every number is -Infinity": [row({}, -Infinity), -1],
  "ignores -Infinity beside finite numbers": [row({ 21: -1e30 }, -Infinity), 21],
};

for (const [fact, [numbers, wanted]] of Object.entries(CASES)) {
  deviceTest(`argmax ${fact}`, (device) => assertEquals(argmaxOf(device, numbers, 40), [wanted]));
}

deviceTest("argmax finds the maximum at every place of a row", (device) => {
  const rows = Float32Array.from({ length: 40 * 40 }, (_, i) => Math.floor(i / 40) === i % 40 ? 1 : 0);
  assertEquals(argmaxOf(device, rows, 40), Array.from({ length: 40 }, (_, i) => i));
});

for (const width of [40_000, 40_001]) {
  deviceTest(`argmax of a long row of ${width}, which several blocks may share, is that of one block`, (device) => {
    const long = (changes: Record<number, number>): Float32Array<ArrayBuffer> => {
      const numbers = new Float32Array(width);
      for (const [index, value] of Object.entries(changes)) numbers[Number(index)] = value;
      return numbers;
    };
    for (let index = 3; index < width; index += 1999) {
      assertEquals(argmaxOf(device, long({ [index]: 1 }), width), [index]);
    }
    assertEquals(argmaxOf(device, long({ 39_999: 5, 20_000: 5, 4097: 5 }), width), [4097]);
    assertEquals(argmaxOf(device, long({ 39_999: 5, 4097: NaN }), width), [-1]);
    assertEquals(argmaxOf(device, long({ 30_000: Infinity }), width), [-1]);
    assertEquals(argmaxOf(device, new Float32Array(width).fill(-Infinity), width), [-1]);
  });
}
