/** A group of devices, whose members share the CPU or are GPUs 0 and 1. */
import { assertEquals, assertThrows } from "@std/assert";
import type { Device } from "../../ffi/device.ts";
import { NativeError, Status } from "../../ffi/errors.ts";
import { allGather, allReduce, allReduceFinish, allReduceStart } from "../../ffi/ops.ts";
import { HAS_TWO_DEVICES, openDevice, withDevice } from "../support/device.ts";

const test = HAS_TWO_DEVICES ? Deno.test : Deno.test.ignore;

function groupTest(name: string, body: (device: Device) => void): void {
  test(name, () => withDevice(body, { indices: [0, 1] }));
}

groupTest("allReduce gives every member the sum", (device) => {
  const x = device.createTensor("f32", [1, 2]);
  device.only(0, () => x.write(Float32Array.of(1, 2)));
  device.only(1, () => x.write(Float32Array.of(10, 20)));
  allReduce(device, x);
  for (const member of [0, 1]) device.only(member, () => assertEquals([...x.readFloats()], [11, 22]));
});

/** Numbers of a member, whose sums over two members are exact. */
function numbersOf(member: number, count: number, round: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count }, (_, index) => (7 * index + 13 * round + 101 * member) % 1009 / 16);
}

// On GPUs, sums of these sizes take different ways.
for (const count of [1, 4095, 4096, 200_001, 1_200_000]) {
  groupTest(`allReduce gives every member the same sum, again and again: ${count} numbers`, (device) => {
    const x = device.createTensor("f32", [1, count]);
    for (let round = 0; round < 3; round++) {
      const parts = [0, 1].map((member) => numbersOf(member, count, round));
      parts.forEach((part, member) => device.only(member, () => x.write(part)));
      allReduce(device, x);
      const sum = parts[0]?.map((number, index) => number + (parts[1]?.[index] ?? NaN));
      for (const member of [0, 1]) device.only(member, () => assertEquals(x.readFloats(), sum));
    }
  });
}

groupTest("two sums can be under way", (device) => {
  const count = 600_000;
  const x = device.createTensor("f32", [2, count]);
  const rows = [x.rows(0, 1), x.rows(1, 1)];
  for (const member of [0, 1]) {
    device.only(member, () => rows.forEach((row, index) => row.write(numbersOf(member, count, index))));
  }
  rows.forEach((row) => allReduceStart(device, row));
  rows.forEach((row) => allReduceFinish(device, row));
  for (const member of [0, 1]) {
    device.only(member, () =>
      rows.forEach((row, round) => {
        const [first, second] = [0, 1].map((from) => numbersOf(from, count, round));
        assertEquals(row.readFloats(), first?.map((number, index) => number + (second?.[index] ?? NaN)));
      }));
  }
});

groupTest("allGather joins the rows of the members side by side", (device) => {
  const x = device.createTensor("f32", [2, 2]);
  const out = device.createTensor("f32", [2, 4]);
  device.only(0, () => x.write(Float32Array.of(1, 2, 3, 4)));
  device.only(1, () => x.write(Float32Array.of(5, 6, 7, 8)));
  allGather(device, x, out);
  for (const member of [0, 1]) {
    device.only(member, () => assertEquals([...out.readFloats()], [1, 2, 5, 6, 3, 4, 7, 8]));
  }
});

groupTest("a write outside of only reaches every member", (device) => {
  const x = device.upload(Float32Array.of(3), [1]);
  device.only(1, () => assertEquals([...x.readFloats()], [3]));
});

groupTest("allReduce is refused while calls are restricted to a member", (device) => {
  const x = device.createTensor("f32", [1, 1]);
  const error = assertThrows(() => device.only(0, () => allReduce(device, x)), NativeError);
  assertEquals(error.status, Status.InvalidArgument);
});

groupTest("a member that the group does not have is refused", (device) => {
  const error = assertThrows(() => device.only(2, () => {}), NativeError);
  assertEquals(error.status, Status.InvalidArgument);
});

groupTest("a read that one member started can be finished through another", (device) => {
  const x = device.createTensor("f32", [2]);
  for (const member of [0, 1]) device.only(member, () => x.write(Float32Array.of(member, 10 + member)));
  device.only(1, () => x.startRead());
  x.startRead();
  const [first, second] = [new Float32Array(2), new Float32Array(2)];
  device.finishRead(first);
  device.only(1, () => device.finishRead(second));
  assertEquals([[...first], [...second]], [[1, 11], [0, 10]]);
});

groupTest("allocated memory is the sum over the members", (device) => {
  const before = device.describe().allocatedBytes;
  device.createBuffer(1024);
  assertEquals(device.describe().allocatedBytes - before, 2048);
});

Deno.test("a device that is in the group twice is refused", () => {
  const error = assertThrows(() => openDevice({ indices: [1, 1] }), NativeError);
  assertEquals(error.status, Status.InvalidArgument);
});
