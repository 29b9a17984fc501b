import { massCode, massOf, scoreCode, scoreOf } from "./codes.ts";
import { ByteReader, ByteWriter } from "./varint.ts";

/** A page that a step read, or that is among the best pages, or both. */
export interface Entry {
  page: number;
  selected: boolean;
  /** Among the pages with the most attention mass, as many as fit the budget. */
  wanted: boolean;
  /** Share of the exact softmax, averaged over the query heads of the KV head. */
  mass: number;
  /** In standard deviations from the mean of the row's pages; 0 if pages were not scored. */
  score: number;
}

/** One step in one layer and KV head. */
export interface Row {
  /** Every page was read; then only the best pages are entries. */
  allRead: boolean;
  /** In ascending order of pages. */
  entries: readonly Entry[];
}

const SELECTED = 1;
const WANTED = 2;

/** Rows one after the other, a few bytes per entry. */
export class RowLog {
  readonly #writer = new ByteWriter();
  readonly #starts: number[] = [];
  #sealed: Uint8Array | undefined;

  /** Rows from the bytes of {@link toBytes}. @throws {RangeError} if they do not contain exactly `count` rows of pages below `numPages` */
  static fromBytes(bytes: Uint8Array, count: number, numPages: number): RowLog {
    const log = new RowLog();
    log.#sealed = bytes;
    const reader = new ByteReader(bytes);
    for (let row = 0; row < count; row++) {
      log.#starts.push(reader.at);
      const last = readRow(reader).entries.at(-1);
      if (last && last.page >= numPages) throw new RangeError(`Page ${last.page} of ${numPages}`);
    }
    if (reader.at !== bytes.length) throw new RangeError(`${bytes.length - reader.at} bytes follow the last row`);
    return log;
  }

  get length(): number {
    return this.#starts.length;
  }

  add({ allRead, entries }: Row): void {
    this.#starts.push(this.#writer.length);
    this.#writer.varint(2 * entries.length + (allRead ? 1 : 0));
    let next = 0;
    for (const { page, selected, wanted, mass, score } of entries) {
      this.#writer.varint(4 * (page - next) + (selected ? SELECTED : 0) + (wanted ? WANTED : 0));
      this.#writer.uint16(massCode(mass));
      this.#writer.uint16(scoreCode(score));
      next = page + 1;
    }
  }

  read(index: number): Row {
    const start = this.#starts[index];
    if (start === undefined) throw new RangeError(`Row ${index} of ${this.length}`);
    this.#sealed ??= this.#writer.toBytes();
    return readRow(new ByteReader(this.#sealed, start));
  }

  toBytes(): Uint8Array {
    return this.#sealed ??= this.#writer.toBytes();
  }
}

function readRow(reader: ByteReader): Row {
  const head = reader.varint();
  const entries: Entry[] = [];
  let next = 0;
  for (let left = Math.floor(head / 2); left > 0; left--) {
    const code = reader.varint();
    const page = next + Math.floor(code / 4);
    const mass = massOf(reader.uint16());
    const score = scoreOf(reader.uint16());
    entries.push({ page, selected: (code & SELECTED) !== 0, wanted: (code & WANTED) !== 0, mass, score });
    next = page + 1;
  }
  return { allRead: head % 2 === 1, entries };
}
