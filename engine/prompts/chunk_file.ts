/** The safetensors file of a chunk: the token ids `[T]` i32 and the pages `[units, bytes of a unit]` u8, with their checksum. */
import { crc32 } from "node:zlib";

const FORMAT = "pagesift prompt 1";
const LENGTH_BYTES = 8;
const MAX_HEADER_BYTES = 4096;

/** What a chunk is, beside its pages. */
export interface ChunkFacts {
  /** Hash of everything that the pages depend on; also the name of the file. */
  key: string;
  /** Key of the first chunk of the prompt. */
  first: string;
  /** The model, for people. */
  model: string;
  /** Tokens of the prompt up to the end of the chunk. */
  endTokens: number;
}

/** A chunk before its pages are filled in. */
export interface ChunkBuffer {
  bytes: Uint8Array<ArrayBuffer>;
  /** The part of `bytes` for the pages. */
  pages: Uint8Array<ArrayBuffer>;
  /** Completes `bytes` once the pages are there. */
  seal(): void;
}

/** Memory for the file of a chunk of these tokens, with `units` pages or groups of `unitBytes` each. */
export function chunkBuffer(facts: ChunkFacts, ids: readonly number[], units: number, unitBytes: number): ChunkBuffer {
  const headerOf = (crc: number): Uint8Array => encodeHeader(facts, ids.length, units, unitBytes, crc);
  const dataAt = LENGTH_BYTES + headerOf(0).length;
  const bytes = new Uint8Array(dataAt + 4 * ids.length + units * unitBytes);
  const view = new DataView(bytes.buffer);
  ids.forEach((id, index) => view.setInt32(dataAt + 4 * index, id, true));
  return {
    bytes,
    pages: bytes.subarray(dataAt + 4 * ids.length),
    seal(): void {
      const header = headerOf(crc32(bytes.subarray(dataAt)));
      view.setBigUint64(0, BigInt(header.length), true);
      bytes.set(header, LENGTH_BYTES);
    },
  };
}

function encodeHeader(facts: ChunkFacts, tokens: number, units: number, unitBytes: number, crc: number): Uint8Array {
  const { key, first, model, endTokens } = facts;
  const idBytes = 4 * tokens;
  const text = JSON.stringify({
    __metadata__: {
      ...{ format: FORMAT, key, first, model, tokens: String(endTokens) },
      crc32: crc.toString(16).padStart(8, "0"),
    },
    ids: { dtype: "I32", shape: [tokens], data_offsets: [0, idBytes] },
    pages: { dtype: "U8", shape: [units, unitBytes], data_offsets: [idBytes, idBytes + units * unitBytes] },
  });
  const bytes = new TextEncoder().encode(text);
  const padded = new Uint8Array(Math.ceil(bytes.length / 8) * 8).fill(" ".charCodeAt(0));
  padded.set(bytes);
  return padded;
}

/**
 * The pages in the file of a chunk.
 *
 * @throws {Error} that says why the file is not the chunk with this key, these tokens and pages of this size
 */
export function pagesOf(
  file: Uint8Array<ArrayBuffer>,
  key: string,
  ids: readonly number[],
  pageBytes: number,
): Uint8Array<ArrayBuffer> {
  const header = headerOf(file);
  if (header === undefined) throw new Error("it is not a saved prompt");
  if (header.facts.key !== key) throw new Error("it belongs to another prompt or model");
  const data = file.subarray(header.dataAt);
  if (data.length !== 4 * ids.length + pageBytes) throw new Error("it is truncated, or has another size");
  if (crc32(data) !== header.crc) throw new Error("its checksum is wrong");
  const view = new DataView(data.buffer, data.byteOffset);
  if (!ids.every((id, index) => view.getInt32(4 * index, true) === id)) throw new Error("it contains other tokens");
  return data.subarray(4 * ids.length);
}

/** What the beginning of a chunk's file says of it; undefined for any other file. */
export function factsOf(start: Uint8Array<ArrayBuffer>): ChunkFacts | undefined {
  return headerOf(start)?.facts;
}

function headerOf(file: Uint8Array<ArrayBuffer>): { facts: ChunkFacts; crc: number; dataAt: number } | undefined {
  if (file.length < LENGTH_BYTES) return undefined;
  const length = new DataView(file.buffer, file.byteOffset).getBigUint64(0, true);
  if (length > MAX_HEADER_BYTES || LENGTH_BYTES + Number(length) > file.length) return undefined;
  const dataAt = LENGTH_BYTES + Number(length);
  try {
    const { __metadata__: { format, key, first, model, tokens, crc32: crc } } = JSON.parse(
      new TextDecoder().decode(file.subarray(LENGTH_BYTES, dataAt)),
    );
    if (format !== FORMAT || ![key, first, model, tokens, crc].every((text) => typeof text === "string")) {
      return undefined;
    }
    return { facts: { key, first, model, endTokens: Number(tokens) }, crc: parseInt(crc, 16), dataAt };
  } catch {
    return undefined;
  }
}

/** Bytes from the start of a file that {@link factsOf} requires. */
export const FACTS_BYTES = LENGTH_BYTES + MAX_HEADER_BYTES;
