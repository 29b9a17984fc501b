import type { Device } from "../ffi/device.ts";
import { add, matmul } from "../ffi/ops.ts";
import type { WeightChange } from "./folder/adapter.ts";
import { readNumbers } from "./folder/tensor_data.ts";
import { readRowsInPieces } from "./folder/tensor_rows.ts";
import { weightDType } from "./folder/weight_formats.ts";
import { floatRows } from "./float_rows.ts";

/** Gets merged rows in f32; `first` is the row of the weight that they begin at. */
type OnMergedRows = (numbers: Float32Array<ArrayBuffer>, first: number, rows: number) => void;

/**
 * Adds an adapter's change to a weight, some rows at a time through `buffer`, and passes them on in f32. The device multiplies.
 *
 * @throws {PagesiftError} of kind "model" where a file ends early
 */
export function mergeRows(
  device: Device,
  change: WeightChange,
  buffer: Uint8Array<ArrayBuffer>,
  onRows: OnMergedRows,
): void {
  const { base, down, up, scale } = change;
  const [rank = 1, columns = 1] = down.shape;
  const dtype = weightDType(base.dtype) ?? "f32";
  const ups = new Float32Array(readNumbers(up));
  using stack = new DisposableStack();
  const factors = device.upload(transposed(readNumbers(down), rank, columns, scale), [columns, rank]);
  stack.use(factors.buffer);
  readRowsInPieces(base, (bytes, first, rows) => {
    using piece = new DisposableStack();
    const numbers = floatRows(device, dtype, [rows, columns], bytes);
    piece.use(numbers.buffer);
    const weights = device.upload(ups.slice(first * rank, (first + rows) * rank), [rows, rank]);
    piece.use(weights.buffer);
    const product = device.createTensor("f32", [rows, columns]);
    piece.use(product.buffer);
    matmul(device, weights, factors, undefined, product);
    add(device, numbers, product);
    onRows(numbers.readFloats(), first, rows);
  }, buffer);
}

/** `[rows, columns]` -> `[columns, rows]`, times a factor: a product takes the rows of its second matrix. */
function transposed(
  numbers: ArrayLike<number>,
  rows: number,
  columns: number,
  factor: number,
): Float32Array<ArrayBuffer> {
  const out = new Float32Array(numbers.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      out[column * rows + row] = factor * (numbers[row * columns + column] ?? NaN);
    }
  }
  return out;
}
