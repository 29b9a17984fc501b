import type { Device } from "../ffi/device.ts";
import { embedding, weightWrite } from "../ffi/ops.ts";
import type { Tensor } from "../ffi/tensor.ts";
import type { WeightDType } from "./folder/weight_formats.ts";

/** The numbers that rows of a weight stand for, on the device: f32 `[rows, columns]`. The caller closes the tensor's buffer. */
export function floatRows(
  device: Device,
  dtype: WeightDType,
  [rows, columns]: readonly [number, number],
  bytes: Uint8Array<ArrayBuffer>,
): Tensor {
  using stack = new DisposableStack();
  const table = device.createTensor(dtype, [rows, columns]);
  stack.use(table.buffer);
  weightWrite(device, table, 0, rows, dtype, bytes);
  const ids = device.upload(Int32Array.from({ length: rows }, (_, row) => row), [rows]);
  stack.use(ids.buffer);
  const out = device.createTensor("f32", [rows, columns]);
  embedding(device, ids, table, out);
  return out;
}
