import { PagesiftError, reasonOf } from "../errors.ts";
import { isJsonObject, type JsonObject, parseJsonObject, shorten, statOrUndefined } from "./json_file.ts";
import { formatCount } from "../text/format.ts";

/** Bytes of one element of each dtype that a file may contain. */
const ELEMENT_BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
  U16: 2,
  I16: 2,
  F16: 2,
  BF16: 2,
  U32: 4,
  I32: 4,
  F32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
  C64: 8,
} as const;

/** How a file names the type of an element. */
export type TensorDtype = keyof typeof ELEMENT_BYTES;

/** One tensor of a file. */
export interface TensorEntry {
  readonly name: string;
  /** Path of the file. */
  readonly file: string;
  readonly dtype: TensorDtype;
  /** Outermost first; empty for a scalar. */
  readonly shape: readonly number[];
  /** From the start of the file. */
  readonly offsetBytes: number;
  readonly bytes: number;
}

/** Where the bytes of a tensor lie. */
export type TensorPlace = Pick<TensorEntry, "name" | "file" | "offsetBytes" | "bytes">;

/** What a safetensors file says about its tensors. */
export interface SafetensorsHeader {
  readonly file: string;
  readonly fileBytes: number;
  /** By name, in the order of their data. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
}

/** Largest piece of {@link readTensorInPieces}. */
export const MAX_PIECE_BYTES = 8 * 1024 * 1024;
const LENGTH_BYTES = 8;
const MAX_HEADER_BYTES = 100_000_000;
const MAX_RANK = 8;
// A header has three levels; with these limits a hostile one costs no more than its size.
const LIMITS = { maxDepth: 8, maxKeys: 100_001, maxValues: 2_000_000 };
const POINTER_START = "version https://git-lfs";

/**
 * Reads the header of a safetensors file and checks that its tensors fill the file without a gap or an overlap, before
 * anything of a size named in the file is allocated. Throws a "model" error that names the file and the tensor.
 */
export async function readSafetensorsHeader(file: string): Promise<SafetensorsHeader> {
  const info = await statOrUndefined(file);
  if (info === undefined) throw new PagesiftError("model", `No file "${file}"; download the model again`);
  if (!info.isFile) refuse(file, "expected a regular file");
  const header = readHeaderBytes(file, info.size);
  const json = parseJsonObject(decodeHeader(header, file), file, LIMITS);
  const dataStart = LENGTH_BYTES + header.length;
  if (!isJsonObject(json["__metadata__"] ?? {})) refuse(file, '"__metadata__" must be an object');
  const entries = Object.entries(json).filter(([name]) => name !== "__metadata__");
  const tensors = entries.map(([name, value]) => parseEntry(name, value, file, dataStart));
  tensors.sort((a, b) => a.offsetBytes - b.offsetBytes || a.bytes - b.bytes);
  checkLayout(tensors, file, dataStart, info.size);
  return { file, fileBytes: info.size, tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])) };
}

/**
 * Reads a tensor's bytes in pieces of at most `pieceBytes` (8 MiB at most, a multiple of 8) into one buffer that the next
 * piece overwrites. `onPiece` gets the filled part and its offset within the tensor. Throws a "model" error where the file
 * ends early, which a mapped file would answer with SIGBUS.
 */
export function readTensorInPieces(
  file: string | Deno.FsFile,
  entry: TensorPlace,
  pieceBytes: number,
  onPiece: (bytes: Uint8Array<ArrayBuffer>, offsetBytes: number) => void,
): void {
  if (typeof file === "string") {
    using handle = openModelFile(file);
    return readTensorInPieces(handle, entry, pieceBytes, onPiece);
  }
  const buffer = new Uint8Array(Math.min(entry.bytes, pieceSize(pieceBytes)));
  for (let offset = 0; offset < entry.bytes; offset += buffer.length) {
    const piece = buffer.subarray(0, entry.bytes - offset);
    readTensorBytes(file, entry, offset, piece);
    onPiece(piece, offset);
  }
}

/** Fills `out` with a tensor's bytes from `offset` on. Throws a "model" error if the file ends early. */
export function readTensorBytes(
  handle: Deno.FsFile,
  { name, file, offsetBytes }: TensorPlace,
  offset: number,
  out: Uint8Array,
): void {
  handle.seekSync(offsetBytes + offset, Deno.SeekMode.Start);
  if (readFully(handle, out, file) === out.length) return;
  const problem = "the file became shorter while it was read; download it again";
  throw new PagesiftError("model", `Cannot read tensor "${shorten(name)}" of "${file}": ${problem}`);
}

function pieceSize(bytes: number): number {
  const size = Math.min(bytes, MAX_PIECE_BYTES);
  if (Number.isSafeInteger(size) && size > 0 && size % 8 === 0) return size;
  throw new RangeError(`Cannot read pieces of ${bytes} bytes: expected a positive multiple of 8`);
}

/** Fills the buffer as far as the file reaches; returns how far. `file` is for messages only. */
export function readFully(handle: Deno.FsFile, buffer: Uint8Array, file: string): number {
  let done = 0;
  try {
    while (done < buffer.length) {
      const count = handle.readSync(buffer.subarray(done));
      if (count === null) break;
      done += count;
    }
  } catch (cause) {
    throw new PagesiftError("model", `Cannot read "${file}": ${reasonOf(cause)}`, { cause });
  }
  return done;
}

/** Opens a file for reading; a failure is a "model" error. */
export function openModelFile(file: string): Deno.FsFile {
  try {
    return Deno.openSync(file);
  } catch (cause) {
    throw new PagesiftError("model", `Cannot open "${file}": ${reasonOf(cause)}`, { cause });
  }
}

/** The header without its length; the length is checked against the file before it is believed. */
function readHeaderBytes(file: string, fileBytes: number): Uint8Array {
  using handle = openModelFile(file);
  const start = new Uint8Array(POINTER_START.length);
  const have = readFully(handle, start, file);
  if (have === start.length && new TextDecoder().decode(start) === POINTER_START) {
    refuse(file, "is a Git LFS pointer, not weights; fetch the real file with `git lfs pull`");
  }
  if (have < LENGTH_BYTES) refuse(file, `only ${fileBytes} bytes, no safetensors file; download it again`);
  const claimed = new DataView(start.buffer).getBigUint64(0, true);
  if (claimed > BigInt(MAX_HEADER_BYTES)) {
    const problem = `claims a header of ${claimed} bytes in a file of ${fileBytes}, the limit is ${MAX_HEADER_BYTES}`;
    refuse(file, `${problem}; expected a safetensors file`);
  }
  const headerBytes = Number(claimed);
  if (LENGTH_BYTES + headerBytes > fileBytes) refuseIncomplete(file, fileBytes, LENGTH_BYTES + headerBytes);
  handle.seekSync(LENGTH_BYTES, Deno.SeekMode.Start);
  const header = new Uint8Array(headerBytes);
  if (readFully(handle, header, file) < headerBytes) {
    refuse(file, "became shorter while it was read; download it again");
  }
  return header;
}

function decodeHeader(header: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(header);
  } catch (cause) {
    throw new PagesiftError("model", `Cannot read "${file}": header is not UTF-8; download it again`, { cause });
  }
}

function parseEntry(name: string, value: unknown, file: string, dataStart: number): TensorEntry {
  if (!isJsonObject(value)) refuseTensor(file, name, "expected an object");
  const dtype = parseDtype(value, file, name);
  const shape = parseShape(value, file, name);
  const [begin, end] = parseOffsets(value, file, name);
  const bytes = shapeBytes(shape, ELEMENT_BYTES[dtype]);
  if (bytes === undefined) refuseTensor(file, name, `shape [${shape}] is too large`);
  if (bytes !== end - begin) {
    refuseTensor(file, name, `shape [${shape}] of ${dtype} takes ${bytes} bytes, its offsets span ${end - begin}`);
  }
  return { name, file, dtype, shape, offsetBytes: dataStart + begin, bytes };
}

function parseDtype({ dtype }: JsonObject, file: string, name: string): TensorDtype {
  if (typeof dtype === "string" && Object.hasOwn(ELEMENT_BYTES, dtype)) return dtype as TensorDtype;
  const found = typeof dtype === "string" ? `"${shorten(dtype)}"` : "none";
  return refuseTensor(file, name, `dtype must be one of ${Object.keys(ELEMENT_BYTES).join(", ")}, found ${found}`);
}

function parseShape({ shape }: JsonObject, file: string, name: string): number[] {
  if (!Array.isArray(shape) || shape.length > MAX_RANK) {
    return refuseTensor(file, name, `shape must be a list of at most ${MAX_RANK} sizes`);
  }
  const isSize = (size: unknown) => Number.isSafeInteger(size) && Number(size) >= 0;
  return shape.every(isSize) ? shape : refuseTensor(file, name, "shape must contain integers of at least 0");
}

function parseOffsets({ data_offsets }: JsonObject, file: string, name: string): [number, number] {
  const offsets: unknown[] = Array.isArray(data_offsets) ? data_offsets : [];
  const isOffset = (offset: unknown) => Number.isSafeInteger(offset) && Number(offset) >= 0;
  if (offsets.length !== 2 || !offsets.every(isOffset)) {
    refuseTensor(file, name, "data_offsets must be two integers that are not negative");
  }
  const [begin, end] = offsets as [number, number];
  return begin <= end ? [begin, end] : refuseTensor(file, name, `data_offsets are reversed (${begin} after ${end})`);
}

/** Undefined beyond 2^53, where numbers stop being exact. */
function shapeBytes(shape: readonly number[], elementBytes: number): number | undefined {
  let bytes = elementBytes;
  for (const size of shape) {
    bytes *= size;
    if (!Number.isSafeInteger(bytes)) return undefined;
  }
  return bytes;
}

/** Bytes that belong to no tensor, or to two, would hide content from tools that inspect the file. */
function checkLayout(sorted: readonly TensorEntry[], file: string, dataStart: number, fileBytes: number): void {
  let end = dataStart;
  for (const { name, offsetBytes, bytes } of sorted) {
    if (offsetBytes < end) refuseTensor(file, name, `overlaps the tensor before it by ${end - offsetBytes} bytes`);
    if (offsetBytes > end) {
      refuseTensor(file, name, `starts ${offsetBytes - end} bytes after the tensor before it ends`);
    }
    end += bytes;
  }
  if (end > fileBytes) refuseIncomplete(file, fileBytes, end);
  if (end < fileBytes) refuse(file, `${fileBytes - end} bytes follow the last tensor; download it again`);
}

function refuse(file: string, problem: string): never {
  throw new PagesiftError("model", `Cannot read "${file}": ${problem}`);
}

function refuseIncomplete(file: string, have: number, expected: number): never {
  const counts = `have ${formatCount(have)} of ${formatCount(expected)} bytes`;
  return refuse(file, `incomplete: ${counts}; download it again`);
}

function refuseTensor(file: string, name: string, problem: string): never {
  throw new PagesiftError("model", `Cannot read tensor "${shorten(name)}" of "${file}": ${problem}`);
}
