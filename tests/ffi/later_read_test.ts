import { assertEquals, assertThrows } from "@std/assert";
import { NativeError } from "../../ffi/errors.ts";
import { deviceTest } from "../support/device.ts";

deviceTest("Reads that were started give what the buffer held then, oldest first", (device) => {
  const tensor = device.upload(new Float32Array([1, 2, 3, 4]), [4]);
  tensor.startRead();
  tensor.flat(0, 2).write(new Float32Array([9, 8]));
  tensor.flat(1, 2).startRead();
  const [first, second] = [new Float32Array(4), new Float32Array(2)];
  device.finishRead(first);
  device.finishRead(second);
  assertEquals([[...first], [...second]], [[1, 2, 3, 4], [8, 3]]);
});

deviceTest("A fifth read at once, one that was not started, and one of another length are refused", (device) => {
  const tensor = device.upload(new Float32Array(400), [400]);
  const four = new Float32Array(1);
  assertThrows(() => device.finishRead(four), NativeError, "No read was started");
  assertThrows(() => tensor.startRead(), NativeError, "expected 1 to 1024");
  const one = tensor.flat(0, 1);
  for (let count = 0; count < 4; count++) one.startRead();
  assertThrows(() => one.startRead(), NativeError, "Too many reads are under way");
  assertThrows(() => device.finishRead(new Float32Array(2)), NativeError, "The oldest read has 4 bytes, not 8");
  for (let count = 0; count < 4; count++) device.finishRead(four);
  assertThrows(() => device.finishRead(four), NativeError, "No read was started");
});
