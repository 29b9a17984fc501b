import type { CheckpointTensor } from "./checkpoint.ts";
import { readF8Rows, readPackedRows } from "./packed_rows.ts";
import { MAX_PIECE_BYTES, openModelFile, readTensorBytes } from "./safetensors.ts";

/** Gets rows in the format of their tensor; the next call overwrites the bytes. */
export type OnRows = (bytes: Uint8Array<ArrayBuffer>, firstRow: number, rows: number) => void;

/**
 * Reads the rows of a tensor in the order that the model has them, in pieces of about `pieceBytes`, each of whole rows. A number of a
 * vector is a row. Throws a "model" error where the file ends early.
 */
export function readRowsInPieces(tensor: CheckpointTensor, onRows: OnRows, pieceBytes = MAX_PIECE_BYTES): void {
  const { storage } = tensor;
  const rows = tensor.shape[0] ?? 1;
  const rowBytes = tensor.bytes / rows;
  if (storage && storage.kind !== "interleaved") {
    const rowsAtOnce = Math.min(rows, Math.max(1, Math.floor(pieceBytes / rowBytes)));
    return storage.kind === "f8"
      ? readF8Rows(tensor, storage, onRows, rowsAtOnce)
      : readPackedRows(tensor, storage, onRows, rowsAtOnce);
  }
  const headDim = storage?.headDim ?? 1;
  const step = Math.max(1, Math.floor(pieceBytes / rowBytes / headDim)) * headDim;
  using file = openModelFile(tensor.file);
  const buffer = new Uint8Array(Math.min(step, rows) * rowBytes);
  for (let first = 0; first < rows; first += step) {
    const count = Math.min(step, rows - first);
    const piece = buffer.subarray(0, count * rowBytes);
    readTensorBytes(file, tensor, first * rowBytes, piece);
    onRows(headDim === 1 ? piece : withSplitHalves(piece, rowBytes, headDim), first, count);
  }
}

/** The rows of whole heads with even places first, then odd ones. */
function withSplitHalves(rows: Uint8Array<ArrayBuffer>, rowBytes: number, headDim: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(rows.length);
  const half = headDim / 2;
  for (let row = 0; row * rowBytes < rows.length; row++) {
    const place = row % headDim;
    const source = row - place + 2 * (place % half) + Math.floor(place / half);
    out.set(rows.subarray(source * rowBytes, (source + 1) * rowBytes), row * rowBytes);
  }
  return out;
}
