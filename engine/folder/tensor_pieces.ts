import { PagesiftError } from "../errors.ts";
import { shorten } from "./json_file.ts";
import { openModelFile, readFully } from "./model_file.ts";
import type { TensorEntry } from "./safetensors.ts";

/** Largest piece of {@link readTensorInPieces}. */
export const MAX_PIECE_BYTES = 8 * 1024 * 1024;

/**
 * Reads a tensor's bytes in pieces of at most `pieceBytes` (8 MiB at most, a multiple of 8) into one buffer that the next
 * piece overwrites. `onPiece` gets the filled part and its offset within the tensor. Throws a "model" error where the file
 * ends early, which a mapped file would answer with SIGBUS.
 */
export function readTensorInPieces(
  file: string | Deno.FsFile,
  entry: TensorEntry,
  pieceBytes: number,
  onPiece: (bytes: Uint8Array<ArrayBuffer>, offsetBytes: number) => void,
): void {
  if (typeof file === "string") {
    using handle = openModelFile(file);
    return readTensorInPieces(handle, entry, pieceBytes, onPiece);
  }
  const buffer = new Uint8Array(Math.min(entry.bytes, pieceSize(pieceBytes)));
  file.seekSync(entry.offsetBytes, Deno.SeekMode.Start);
  for (let offset = 0; offset < entry.bytes; offset += buffer.length) {
    const piece = buffer.subarray(0, entry.bytes - offset);
    if (readFully(file, piece, entry.file) < piece.length) {
      const problem = "the file became shorter while it was read; download it again";
      throw new PagesiftError("model", `Cannot read tensor "${shorten(entry.name)}" of "${entry.file}": ${problem}`);
    }
    onPiece(piece, offset);
  }
}

function pieceSize(bytes: number): number {
  const size = Math.min(bytes, MAX_PIECE_BYTES);
  if (Number.isSafeInteger(size) && size > 0 && size % 8 === 0) return size;
  throw new RangeError(`Cannot read pieces of ${bytes} bytes: expected a positive multiple of 8`);
}
