/** The recording in the report, unpacked. inspect/trace.ts describes the bytes, inspect/html/data.ts what stands beside them. */
import { splitWords, tokensOf } from "./words.js";

const SELECTED = 1;

/** The bytes of a gzip stream in base64. */
async function unzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function fromBase64(base64) {
  const text = atob(base64.trim());
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  return bytes;
}

/** Reads the varints and 16-bit numbers that inspect/varint.ts writes. */
class ByteReader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  varint() {
    let value = 0;
    for (let scale = 1;; scale *= 128) {
      const byte = this.bytes[this.at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  }

  uint16() {
    const low = this.bytes[this.at++];
    return low | (this.bytes[this.at++] << 8);
  }
}

/** The parts of a trace. */
async function readTrace(bytes) {
  const unpacked = await unzip(bytes.subarray(bytes.indexOf(10) + 1));
  const headBytes = new DataView(unpacked.buffer).getUint32(0, true);
  let at = 4 + headBytes;
  const header = JSON.parse(new TextDecoder().decode(unpacked.subarray(4, at)));
  const sections = header.sectionBytes.map((length) => unpacked.slice(at, at += length));
  return { facts: header.facts, sections };
}

/**
 * Everything that the views show: facts, text and page ends, the tokens and words of the answer, totals `[L, H, P]`, and the rows
 * `[N, L, H]` with their entries in parallel arrays; the entries of row r are `[starts[r], starts[r + 1])`.
 */
export async function readReport(traceBase64, viewBase64) {
  const view = JSON.parse(new TextDecoder().decode(await unzip(fromBase64(viewBase64))));
  const { facts, sections } = await readTrace(fromBase64(traceBase64));
  const [text, ends, mass, score, rows] = sections;
  const numPages = facts.pages;
  const tokenEnds = readEnds(ends, facts.promptTokens + facts.steps);
  const data = {
    ...{ ...facts, ...view, numPages, numLayers: facts.layers.length, tokenEnds, kinds: facts.layers },
    text: new TextDecoder("utf-8", { ignoreBOM: true }).decode(text),
    pageEnds: Uint32Array.from(
      { length: numPages },
      (_, page) => tokenEnds[Math.min((page + 1) * facts.pageSize, tokenEnds.length) - 1],
    ),
    totals: { mass: new Uint16Array(mass.buffer), score: new Uint16Array(score.buffer) },
    rows: readRows(rows, facts.steps * facts.layers.length * facts.heads),
  };
  const tokens = tokensOf(data);
  return { ...data, tokens, words: splitWords(tokens) };
}

function readEnds(bytes, count) {
  const reader = new ByteReader(bytes);
  let end = 0;
  return Uint32Array.from({ length: count }, () => end += reader.varint());
}

function readRows(bytes, count) {
  const reader = new ByteReader(bytes);
  const most = Math.ceil(bytes.length / 5); // an entry takes 5 bytes at least
  const rows = {
    starts: new Uint32Array(count + 1),
    allRead: new Uint8Array(count),
    page: new Uint32Array(most),
    selected: new Uint8Array(most),
    mass: new Uint16Array(most),
    score: new Uint16Array(most),
  };
  let entry = 0;
  for (let row = 0; row < count; row++) {
    rows.starts[row] = entry;
    const head = reader.varint();
    rows.allRead[row] = head % 2;
    let next = 0;
    for (let left = Math.floor(head / 2); left > 0; left--, entry++) {
      const code = reader.varint();
      rows.page[entry] = next + Math.floor(code / 4);
      rows.selected[entry] = code & SELECTED;
      rows.mass[entry] = reader.uint16();
      rows.score[entry] = reader.uint16();
      next = rows.page[entry] + 1;
    }
  }
  rows.starts[count] = entry;
  return rows;
}

/** Characters `[start, end)` of a page. */
export function pageSpan({ pageEnds }, page) {
  return [page === 0 ? 0 : pageEnds[page - 1], pageEnds[page]];
}

export function pageText(data, page) {
  return data.text.slice(...pageSpan(data, page));
}

/** The page with a character. */
export function pageAt({ pageEnds }, character) {
  let [low, high] = [0, pageEnds.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (pageEnds[middle] <= character) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** `a.txt:3-5` */
export function pagePlace(data, page) {
  const [source, first, last, more] = data.places[page];
  const lines = first === 0 ? "" : first === last ? `:${first}` : `:${first}-${last}`;
  return data.sources[source] + lines + (more > 0 ? ` and ${more} more` : "");
}

/** Why a page is read whatever its score: `first`, `latest`, or nothing where the scorer chooses. */
export function alwaysRead(data, page) {
  return page < data.sinkPages ? "first" : page >= data.firstRecentPage ? "latest" : "";
}
