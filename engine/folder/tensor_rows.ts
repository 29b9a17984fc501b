import type { CheckpointTensor } from "./checkpoint.ts";
import { readF8Rows, readPackedRows } from "./packed_rows.ts";
import { openModelFile, readTensorBytes } from "./safetensors.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** Gets rows in the format of their tensor; the next call overwrites the bytes. */
export type OnRows = (bytes: Bytes, firstRow: number, rows: number) => void;

/**
 * Reads the rows of a tensor in the order that the model has them, in pieces of whole rows that fit half of `buffer`, at least one row. A
 * number of a vector is a row. A caller that reads many tensors lends the same buffer to all of them: memory that each tensor allocated
 * would stay until V8 collects it. Throws a "model" error where the file ends early.
 */
export function readRowsInPieces(
  tensor: CheckpointTensor,
  onRows: OnRows,
  buffer: Bytes,
): void {
  const { storage } = tensor;
  const rows = tensor.shape[0] ?? 1;
  const rowBytes = tensor.bytes / rows;
  const pieceBytes = buffer.length / 2;
  if (storage && storage.kind !== "interleaved") {
    const rowsAtOnce = Math.min(rows, Math.max(1, Math.floor(pieceBytes / rowBytes)));
    return storage.kind === "f8"
      ? readF8Rows(tensor, storage, onRows, rowsAtOnce)
      : readPackedRows(tensor, storage, onRows, rowsAtOnce);
  }
  const headDim = storage?.headDim ?? 1;
  const step = Math.max(1, Math.floor(pieceBytes / rowBytes / headDim)) * headDim;
  using file = openModelFile(tensor.file);
  // A row, or a head, may be larger than the buffer.
  const [stored, turned] = halvesOf(buffer, Math.min(step, rows) * rowBytes);
  for (let first = 0; first < rows; first += step) {
    const count = Math.min(step, rows - first);
    const piece = stored.subarray(0, count * rowBytes);
    readTensorBytes(file, tensor, first * rowBytes, piece);
    if (headDim > 1) splitHalves(piece, rowBytes, headDim, turned);
    onRows((headDim > 1 ? turned : stored).subarray(0, piece.length), first, count);
  }
}

/** Two buffers of at least `bytes` each. */
function halvesOf(buffer: Bytes, bytes: number): [Bytes, Bytes] {
  const all = 2 * bytes <= buffer.length ? buffer : new Uint8Array(2 * bytes);
  return [all.subarray(0, all.length / 2), all.subarray(all.length / 2)];
}

/** Writes the rows of whole heads to `out`, even places first, then odd ones. */
function splitHalves(rows: Bytes, rowBytes: number, headDim: number, out: Bytes): void {
  const half = headDim / 2;
  for (let row = 0; row * rowBytes < rows.length; row++) {
    const place = row % headDim;
    const source = row - place + 2 * (place % half) + Math.floor(place / half);
    out.set(rows.subarray(source * rowBytes, (source + 1) * rowBytes), row * rowBytes);
  }
}
