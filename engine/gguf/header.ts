import { PagesiftError } from "../errors.ts";
import { shorten, statOrUndefined } from "../folder/json_file.ts";
import { formatCount } from "../text/format.ts";
import { FileCursor } from "./file_cursor.ts";
import { GGML_TYPES } from "./tensor_types.ts";

/** A metadata value. Integers beyond 2^53 are bigints. */
export type GgufValue = number | bigint | boolean | string | readonly GgufValue[];

/** One tensor of a file. */
export interface GgufTensor {
  readonly name: string;
  /** Path of the file. */
  readonly file: string;
  /** Name of the format, such as `Q4_K`. */
  readonly dtype: string;
  /** Outermost first. */
  readonly shape: readonly number[];
  /** From the start of the file. */
  readonly offsetBytes: number;
  readonly bytes: number;
}

/** What a GGUF file says before its tensors' data. */
export interface GgufHeader {
  readonly file: string;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** By name, in the order of the file. */
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

const MAGIC = "GGUF";
const VERSIONS = [2, 3];
const MAX_TENSORS = 100_000;
const MAX_FIELDS = 65_536;
/** Items of all lists of a file; a vocabulary of 262,144 tokens takes three times its size. */
const MAX_ITEMS = 8_000_000;
const MAX_DEPTH = 4;
const MAX_RANK = 4;
const MAX_ALIGNMENT = 1 << 20;
const DEFAULT_ALIGNMENT = 32;
const ALIGNMENT_FIELD = "general.alignment";
/** The least that a tensor and a field take in the file. */
const TENSOR_BYTES = 8 + 4 + 8 + 4 + 8;
const FIELD_BYTES = 8 + 4 + 1;

/**
 * Reads the header of a GGUF file of version 2 or 3, little-endian, and checks that its tensors fill the file without a gap or an
 * overlap, before anything of a size named in the file is allocated. Throws a "model" error that names the file and the field or tensor.
 */
export async function readGgufHeader(file: string): Promise<GgufHeader> {
  const info = await statOrUndefined(file);
  if (info === undefined) throw new PagesiftError("model", `No file "${file}"; download the model again`);
  if (!info.isFile) throw new PagesiftError("model", `Cannot read "${file}": expected a regular file`);
  using cursor = new FileCursor(file, info.size);
  checkVersion(cursor);
  cursor.field = "the number of tensors";
  const numTensors = countOf(cursor, TENSOR_BYTES, "tensors", MAX_TENSORS);
  cursor.field = "the number of metadata fields";
  const metadata = readMetadata(cursor, countOf(cursor, FIELD_BYTES, "fields", MAX_FIELDS));
  const entries = Array.from({ length: numTensors }, () => readTensorEntry(cursor));
  const tensors = placeTensors(entries, cursor, alignmentOf(metadata, cursor));
  return { file, metadata, tensors };
}

function checkVersion(cursor: FileCursor): void {
  cursor.field = "the magic number";
  const magic = String.fromCharCode(...Array.from({ length: MAGIC.length }, () => cursor.u8()));
  if (magic === "vers") cursor.refuse("is that of a Git LFS pointer; fetch the real file with `git lfs pull`");
  if (magic !== MAGIC) cursor.refuse(`is "${shorten(magic)}", expected "${MAGIC}"; this is no GGUF file`);
  cursor.field = "the version";
  const version = cursor.u32();
  if (VERSIONS.includes(version)) return;
  // A small number whose bytes are the other way round.
  if (version % 0x10000 === 0) cursor.refuse("is big-endian, which is not supported; use a little-endian file");
  cursor.refuse(`is ${version}, expected ${VERSIONS.join(" or ")}; convert the model again`);
}

function countOf(cursor: FileCursor, itemBytes: number, what: string, most: number): number {
  const count = cursor.count(itemBytes, what);
  return count <= most ? count : cursor.refuse(`is ${formatCount(count)}, expected at most ${formatCount(most)}`);
}

function readMetadata(cursor: FileCursor, count: number): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>();
  const items = { left: MAX_ITEMS };
  for (let index = 0; index < count; index++) {
    cursor.field = `the key of metadata field ${index}`;
    const key = cursor.text();
    cursor.field = `field "${key}"`;
    if (metadata.has(key)) cursor.refuse("appears twice; download the file again");
    metadata.set(key, readValue(cursor, cursor.u32(), items, 0));
  }
  return metadata;
}

/** How a type of value is read, and the least that it takes in the file; by its number. Lists are number 9. */
const SCALARS: readonly ({ bytes: number; read: (cursor: FileCursor) => GgufValue } | undefined)[] = [
  { bytes: 1, read: (cursor) => cursor.u8() },
  { bytes: 1, read: (cursor) => cursor.i8() },
  { bytes: 2, read: (cursor) => cursor.u16() },
  { bytes: 2, read: (cursor) => cursor.i16() },
  { bytes: 4, read: (cursor) => cursor.u32() },
  { bytes: 4, read: (cursor) => cursor.i32() },
  { bytes: 4, read: (cursor) => cursor.f32() },
  { bytes: 1, read: (cursor) => cursor.bool() },
  { bytes: 8, read: (cursor) => cursor.text() },
  undefined,
  { bytes: 8, read: (cursor) => plain(cursor.u64()) },
  { bytes: 8, read: (cursor) => plain(cursor.i64()) },
  { bytes: 8, read: (cursor) => cursor.f64() },
];
const LIST = 9;
/** Type and count of a list inside a list. */
const LIST_BYTES = 12;

function plain(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function readValue(cursor: FileCursor, type: number, items: { left: number }, depth: number): GgufValue {
  if (type !== LIST) return (SCALARS[type] ?? refuseType(cursor, type)).read(cursor);
  if (depth === MAX_DEPTH) cursor.refuse(`has lists nested deeper than ${MAX_DEPTH} levels`);
  const itemType = cursor.u32();
  const itemBytes = itemType === LIST ? LIST_BYTES : (SCALARS[itemType] ?? refuseType(cursor, itemType)).bytes;
  const count = cursor.count(itemBytes, "items");
  items.left -= count;
  if (items.left < 0) {
    cursor.refuse(`has ${formatCount(count)} items, more than the ${formatCount(MAX_ITEMS)} that a file may list`);
  }
  const list: GgufValue[] = [];
  for (let index = 0; index < count; index++) list.push(readValue(cursor, itemType, items, depth + 1));
  return list;
}

function refuseType(cursor: FileCursor, type: number): never {
  return cursor.refuse(`has a value of type ${type}, expected one from 0 to ${SCALARS.length - 1}`);
}

/** A tensor whose offset counts from the start of the data, which is known behind the last entry. */
function readTensorEntry(cursor: FileCursor): Omit<GgufTensor, "file"> {
  cursor.field = "the name of a tensor";
  const name = cursor.text();
  cursor.field = `tensor "${name}"`;
  const rank = cursor.u32();
  if (rank < 1 || rank > MAX_RANK) cursor.refuse(`has ${rank} dimensions, expected 1 to ${MAX_RANK}`);
  const sizes = Array.from({ length: rank }, () => sizeOf(cursor));
  const number = cursor.u32();
  const type = GGML_TYPES.get(number) ?? cursor.refuse(`has the unknown format number ${number}; use another file`);
  const { name: dtype, blockSize, blockBytes } = type;
  const width = sizes[0] ?? 1;
  if (width % blockSize !== 0) {
    cursor.refuse(`has rows of ${width} numbers, and ${dtype} has blocks of ${blockSize}; download the file again`);
  }
  const rowBytes = width / blockSize * blockBytes;
  const bytes = sizes.slice(1).reduce((product, size) => product * size, rowBytes);
  if (!Number.isSafeInteger(bytes)) cursor.refuse(`has a shape [${sizes.toReversed()}] that is too large`);
  const offsetBytes = Number(cursor.u64());
  return { name, dtype, shape: sizes.toReversed(), offsetBytes, bytes };
}

function sizeOf(cursor: FileCursor): number {
  const size = cursor.u64();
  return size > 0n && size < 2n ** 31n ? Number(size) : cursor.refuse(`has a dimension of ${size}`);
}

function alignmentOf(metadata: ReadonlyMap<string, GgufValue>, cursor: FileCursor): number {
  const value = metadata.get(ALIGNMENT_FIELD) ?? DEFAULT_ALIGNMENT;
  const isValid = typeof value === "number" && value >= 8 && value <= MAX_ALIGNMENT && (value & (value - 1)) === 0;
  if (isValid) return value;
  cursor.field = `field "${ALIGNMENT_FIELD}"`;
  const found = typeof value === "object" ? "a list" : `"${shorten(String(value))}"`;
  return cursor.refuse(`must be a power of 2 from 8 to ${MAX_ALIGNMENT}, found ${found}`);
}

/** Bytes that belong to no tensor, or to two, would hide content from tools that inspect the file. */
function placeTensors(
  entries: readonly Omit<GgufTensor, "file">[],
  cursor: FileCursor,
  alignment: number,
): Map<string, GgufTensor> {
  const { file, fileBytes } = cursor;
  const aligned = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;
  const dataStart = aligned(cursor.position);
  const tensors = new Map<string, GgufTensor>();
  let end = 0;
  for (const entry of entries) {
    cursor.field = `tensor "${entry.name}"`;
    if (tensors.has(entry.name)) cursor.refuse("appears twice; download the file again");
    if (entry.offsetBytes !== aligned(end)) {
      cursor.refuse(`starts at byte ${entry.offsetBytes} of the data, expected ${aligned(end)}, behind the one before`);
    }
    end = entry.offsetBytes + entry.bytes;
    tensors.set(entry.name, { ...entry, file, offsetBytes: dataStart + entry.offsetBytes });
  }
  const [last, expected] = [dataStart + end, dataStart + aligned(end)];
  cursor.field = "the data";
  if (tensors.size > 0 && fileBytes < last) {
    cursor.refuse(
      `is incomplete: the file has ${formatCount(fileBytes)} of ${formatCount(last)} bytes; download it again`,
    );
  }
  if (fileBytes > Math.max(expected, cursor.position)) {
    cursor.refuse(`is followed by ${formatCount(fileBytes - expected)} bytes that belong to no tensor`);
  }
  return tensors;
}
