/**
 * A recording as a file: a line with format and version, then one gzip stream, whose checksum reveals damage. The HTML report contains a
 * trace too; inspect/html/client/recording.js reads it.
 */
import { PagesiftError, reasonOf } from "../engine/errors.ts";
import { checkHeader, type TraceHeader } from "./trace_header.ts";
import type { Recording } from "./recording.ts";
import { COMPARED_FIGURES, FIGURES } from "./recording.ts";
import { RowLog } from "./row_log.ts";
import { ByteReader, ByteWriter } from "./varint.ts";

const NAME = "PAGESIFT-TRACE";
export const TRACE_VERSION = 1;
const FIRST_LINE_BYTES = 64;
/** Most bytes that a trace may unpack to. A million tokens, 64 layers and 8 heads need less. */
const MAX_UNPACKED_BYTES = 2 ** 31;

type Section = Uint8Array<ArrayBuffer>;

/** The bytes of a trace file. */
export async function writeTrace(recording: Recording): Promise<Uint8Array<ArrayBuffer>> {
  const { facts, text, totals, rows, figures, comparison, promptReads, ablations } = recording;
  const sections = [
    new TextEncoder().encode(text.text),
    deltas(text.tokenEnds),
    bytesOf(totals.mass),
    bytesOf(totals.score),
    rows.toBytes(),
    bytesOf(figures),
    bytesOf(comparison?.figures ?? new Float32Array()),
  ];
  const header: TraceHeader = {
    facts,
    spans: text.spans,
    scorers: comparison?.scorers ?? [],
    ...promptReads && { promptReads },
    ...ablations && { ablations },
    sectionBytes: sections.map(({ length }) => length),
  };
  const head = new TextEncoder().encode(JSON.stringify(header));
  const length = new Uint8Array(new Uint32Array([head.length]).buffer);
  const packed = await pipe([length, head, ...sections], new CompressionStream("gzip"));
  return joined([new TextEncoder().encode(`${NAME}/${TRACE_VERSION}\n`), packed]);
}

/** @throws {PagesiftError} of kind "model" if the file is not a trace, has another version, is damaged or cut short */
export async function readTrace(bytes: Uint8Array<ArrayBuffer>, name: string): Promise<Recording> {
  const start = checkFirstLine(bytes, name);
  try {
    return parse(await pipe([bytes.subarray(start)], new DecompressionStream("gzip")));
  } catch (error) {
    if (error instanceof PagesiftError) throw error;
    throw new PagesiftError(
      "model",
      `Trace "${name}" is damaged or cut short: ${reasonOf(error)}; record it again with --trace`,
      {
        cause: error,
      },
    );
  }
}

/** Where the first line ends. */
function checkFirstLine(bytes: Uint8Array, name: string): number {
  const end = bytes.subarray(0, FIRST_LINE_BYTES).indexOf(10);
  const line = new TextDecoder().decode(bytes.subarray(0, Math.max(end, 0)));
  const [format, version] = line.split("/");
  if (format !== NAME || version === undefined) {
    throw new PagesiftError("model", `"${name}" is not a trace of inspect-pages; --trace writes one`);
  }
  if (version === String(TRACE_VERSION)) return end + 1;
  throw new PagesiftError(
    "model",
    `Trace "${name}" is of version ${
      version.slice(0, 8)
    }, this program reads version ${TRACE_VERSION}; record it again with --trace`,
  );
}

function parse(unpacked: Section): Recording {
  const headBytes = new DataView(unpacked.buffer).getUint32(0, true);
  const header: unknown = JSON.parse(
    new TextDecoder("utf-8", { fatal: true }).decode(unpacked.subarray(4, 4 + headBytes)),
  );
  checkHeader(header);
  const { facts, spans, scorers, promptReads, ablations, sectionBytes } = header;
  const { layers, heads, pages, steps, promptTokens } = facts;
  let at = 4 + headBytes;
  const [text, ends, mass, score, rows, figures, compared] = sectionBytes.map((length) => {
    if (at + length > unpacked.length) throw new RangeError("a section is cut short");
    return unpacked.slice(at, at += length);
  });
  if (at !== unpacked.length) throw new RangeError(`${unpacked.length - at} bytes follow the last section`);
  const numRows = steps * layers.length * heads;
  const perPage = layers.length * heads * pages;
  const comparedNumbers = numRows * scorers.length * COMPARED_FIGURES.length;
  return {
    facts,
    // A byte order mark is a character of the text like any other.
    text: {
      text: new TextDecoder("utf-8", { ignoreBOM: true }).decode(text),
      tokenEnds: fromDeltas(ends!, promptTokens + steps),
      spans,
    },
    totals: { mass: new Uint16Array(sized(mass!, 2 * perPage)), score: new Uint16Array(sized(score!, 2 * perPage)) },
    rows: RowLog.fromBytes(rows!, numRows, pages),
    figures: new Float32Array(sized(figures!, 4 * numRows * FIGURES.length)),
    ...scorers.length > 0 &&
      { comparison: { scorers, figures: new Float32Array(sized(compared!, 4 * comparedNumbers)) } },
    ...promptReads && { promptReads },
    ...ablations && { ablations },
  };
}

function sized(section: Section, bytes: number): ArrayBuffer {
  if (section.length !== bytes) throw new RangeError(`a section has ${section.length} bytes instead of ${bytes}`);
  return section.buffer;
}

function deltas(ends: Uint32Array): Section {
  const writer = new ByteWriter();
  ends.forEach((end, index) => writer.varint(end - (ends[index - 1] ?? 0)));
  return writer.toBytes();
}

function fromDeltas(section: Section, count: number): Uint32Array {
  const reader = new ByteReader(section);
  if (count > section.length) throw new RangeError(`${section.length} bytes are too few for ${count} token ends`);
  const ends = new Uint32Array(count);
  let end = 0;
  for (let index = 0; index < count; index++) ends[index] = end += reader.varint();
  return ends;
}

function bytesOf(numbers: Uint16Array | Float32Array): Section {
  return new Uint8Array(numbers.buffer as ArrayBuffer, numbers.byteOffset, numbers.byteLength);
}

async function pipe(chunks: readonly Uint8Array[], through: CompressionStream | DecompressionStream): Promise<Section> {
  const source = ReadableStream.from(chunks as Iterable<BufferSource>);
  const out: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of source.pipeThrough(through)) {
    length += chunk.length;
    if (length > MAX_UNPACKED_BYTES) throw new RangeError(`it unpacks to more than ${MAX_UNPACKED_BYTES} bytes`);
    out.push(chunk);
  }
  return joined(out);
}

function joined(parts: readonly Uint8Array[]): Section {
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
