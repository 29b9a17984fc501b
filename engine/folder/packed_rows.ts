/** Rows of matrices that model folders store quantised, in the formats that the operations read. */
import type { CheckpointTensor, F8Storage, PackedStorage } from "./checkpoint.ts";
import { PagesiftError } from "../errors.ts";
import { shorten } from "./json_file.ts";
import { openModelFile, readTensorBytes } from "./safetensors.ts";
import { readAll, readNumbers } from "./tensor_data.ts";
import type { OnRows } from "./tensor_rows.ts";
import { BLOCK_SIZE, F8_BLOCK_SIZE } from "./weight_formats.ts";

const F8_BLOCK_BYTES = F8_BLOCK_SIZE + 4;
const Q4_BLOCK_BYTES = 20;
/** Numbers of 4 bits in an integer. */
const PER_INTEGER = 8;
/** Sixteen times as much is the largest number of f16. */
const MAX_SCALE = 4094;
/** Where the numbers of eight neighbouring rows stand in an integer. */
const PLACES = { awq: [0, 4, 1, 5, 2, 6, 3, 7], gptq: [0, 1, 2, 3, 4, 5, 6, 7] } as const;

function refuse({ name, file }: CheckpointTensor, problem: string): never {
  throw new PagesiftError("model", `Cannot use tensor "${shorten(name)}" of "${file}": ${problem}; use another model`);
}

/** Reads rows of 8-bit floats, in blocks of 128 numbers with the scale behind them. */
export function readF8Rows(tensor: CheckpointTensor, { scales }: F8Storage, onRows: OnRows, rowsAtOnce: number): void {
  const [rows = 0, columns = 0] = tensor.shape;
  const blocks = columns / F8_BLOCK_SIZE;
  const values = readNumbers(scales);
  const scaleAt = scaleReader(scales.shape, values, rows, blocks);
  const rowBytes = blocks * F8_BLOCK_BYTES;
  using file = openModelFile(tensor.file);
  const stored = new Uint8Array(rowsAtOnce * columns);
  const out = new Uint8Array(rowsAtOnce * rowBytes);
  const view = new DataView(out.buffer);
  for (let first = 0; first < rows; first += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, rows - first);
    readTensorBytes(file, tensor, first * columns, stored.subarray(0, count * columns));
    for (let block = 0; block < count * blocks; block++) {
      const [from, to] = [block * F8_BLOCK_SIZE, block * F8_BLOCK_BYTES];
      out.set(stored.subarray(from, from + F8_BLOCK_SIZE), to);
      view.setFloat32(to + F8_BLOCK_SIZE, scaleAt(first + Math.floor(block / blocks), block % blocks), true);
    }
    onRows(out.subarray(0, count * rowBytes), first, count);
  }
}

/** The scale of a block: one for 128 by 128 numbers, for a row, or for all. */
function scaleReader(
  shape: readonly number[],
  values: ArrayLike<number>,
  rows: number,
  blocks: number,
): (row: number, block: number) => number {
  if (values.length === 1) return () => values[0] ?? NaN;
  const isPerRow = values.length === rows && shape[0] === rows && (shape[1] ?? 1) === 1;
  if (isPerRow) return (row) => values[row] ?? NaN;
  return (row, block) => values[Math.floor(row / F8_BLOCK_SIZE) * blocks + block] ?? NaN;
}

/**
 * Reads rows of 4-bit groups as Q4_1: a block's scale is that of its group, its minimum is minus the zero point times the scale. Both are
 * rounded to f16, which scales already are in most files.
 */
export function readPackedRows(
  tensor: CheckpointTensor,
  storage: PackedStorage,
  onRows: OnRows,
  rowsAtOnce: number,
): void {
  const [rows = 0, columns = 0] = tensor.shape;
  const { kind, groupSize, zeroOffset, order } = storage;
  if (order) checkOrder(order, columns, groupSize);
  const packed = new Uint32Array(readAll(tensor).buffer);
  const zeros = new Uint32Array(readAll(storage.zeros).buffer);
  const scales = readNumbers(storage.scales);
  if (!scales.every((scale) => Math.abs(scale) <= MAX_SCALE)) {
    refuse(storage.scales, `contains scales beyond ${MAX_SCALE}, which f16 cannot hold`);
  }
  const blocks = columns / BLOCK_SIZE;
  const numberAt = kind === "awq" ? alongRows(packed, rows) : alongColumns(packed, rows);
  const zeroAt = alongRowsOf(zeros, rows, PLACES[kind]);
  const out = new Uint8Array(rowsAtOnce * blocks * Q4_BLOCK_BYTES);
  const view = new DataView(out.buffer);
  for (let first = 0; first < rows; first += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, rows - first);
    for (let at = 0, row = first; row < first + count; row++) {
      for (let block = 0; block < blocks; block++, at += Q4_BLOCK_BYTES) {
        const start = block * BLOCK_SIZE;
        const group = Math.floor(start / groupSize);
        const scale = scales[group * rows + row] ?? NaN;
        view.setFloat16(at, scale, true);
        view.setFloat16(at + 2, -(zeroAt(group, row) + zeroOffset) * scale, true);
        for (let i = 0; i < BLOCK_SIZE / 2; i++) {
          out[at + 4 + i] = numberAt(start + i, row) | numberAt(start + i + BLOCK_SIZE / 2, row) << 4;
        }
      }
    }
    onRows(out.subarray(0, count * blocks * Q4_BLOCK_BYTES), first, count);
  }
}

type NumberAt = (column: number, row: number) => number;

/** AWQ: `[columns, rows / 8]`. */
function alongRows(packed: Uint32Array, rows: number): NumberAt {
  return alongRowsOf(packed, rows, PLACES.awq);
}

function alongRowsOf(packed: Uint32Array, rows: number, places: readonly number[]): NumberAt {
  const width = rows / PER_INTEGER;
  return (column, row) => (packed[column * width + (row >> 3)] ?? 0) >>> 4 * (places[row & 7] ?? 0) & 15;
}

/** GPTQ: `[columns / 8, rows]`. */
function alongColumns(packed: Uint32Array, rows: number): NumberAt {
  return (column, row) => (packed[(column >> 3) * rows + row] ?? 0) >>> 4 * (column & 7) & 15;
}

/** Refuses columns that belong to groups in another order than their own. */
function checkOrder(order: CheckpointTensor, columns: number, groupSize: number): void {
  const groups = readNumbers(order);
  if (groups.length === columns && groups.every((group, column) => group === Math.floor(column / groupSize))) return;
  refuse(order, "columns belong to groups out of order (act-order), which is not supported");
}
