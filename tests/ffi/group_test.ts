/** A group of devices, whose members share the CPU or are GPUs 0 and 1. */
import { assertEquals, assertThrows } from "@std/assert";
import type { Device } from "../../ffi/device.ts";
import { NativeError, Status } from "../../ffi/errors.ts";
import { allGather, allReduce } from "../../ffi/ops.ts";
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

groupTest("allocated memory is the sum over the members", (device) => {
  const before = device.describe().allocatedBytes;
  device.createBuffer(1024);
  assertEquals(device.describe().allocatedBytes - before, 2048);
});

Deno.test("a device that is in the group twice is refused", () => {
  const error = assertThrows(() => openDevice({ indices: [1, 1] }), NativeError);
  assertEquals(error.status, Status.InvalidArgument);
});
