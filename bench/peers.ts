/** Rows measured by other programs: read, checked, and placed next to ours if the settings match. */
import { type Field, type FieldKind, FIELDS } from "./fields.ts";
import { fieldError, parseObject } from "./json_lines.ts";
import { usageError } from "./lists.ts";
import type { Row, Settings, Subject } from "./row.ts";

/** A peer's row and its place in the file, for messages. */
export interface PeerRow {
  row: Row;
  /** `peers.jsonl:3` */
  place: string;
}

const SUBJECTS: readonly string[] = ["attention", "generate"];
/** Settings that must be equal if the peer row contains them. */
const SETTINGS = [
  ...["context_tokens", "batch", "query_heads", "kv_heads", "head_dim", "prompt_tokens", "decode_tokens"],
  ...["depth_tokens", "dtype", "page_size", "budget_tokens", "scorer", "model"],
] as readonly (keyof Settings)[];

/** The rows of a JSON Lines text for this subject. @throws {PagesiftError} of kind "usage" that names line and field */
export function parsePeers(file: string, text: string, subject: Subject): PeerRow[] {
  return text.split("\n").flatMap((line, index) => {
    if (line.trim() === "") return [];
    const place = `${file}:${index + 1}`;
    const named = `Peer row ${place}`;
    const row = readRow(parseObject(line, named), named);
    return row.subject === subject ? [{ row, place }] : [];
  });
}

function readRow(value: Readonly<Record<string, unknown>>, place: string): Row {
  const { subject } = value;
  if (typeof subject !== "string" || !SUBJECTS.includes(subject)) {
    throw fieldError(place, "subject", subject, `one of ${SUBJECTS.join(", ")}`);
  }
  const fields = FIELDS.filter(({ peer, only }) => peer !== undefined && (only === undefined || only === subject));
  const unknown = Object.keys(value).find((name) => !fields.some((field) => field.name === name));
  if (unknown !== undefined) {
    throw usageError(
      `${place}: field "${unknown}" is unknown for ${subject}; known fields: ${
        fields.map(({ name }) => name).join(", ")
      }`,
    );
  }
  for (const field of fields) checkField(field, value[field.name], place);
  const row = value as unknown as Row;
  return withDerived({ ...row, program: row.program ?? row.arm }, place);
}

function checkField({ name, kind, peer }: Field, value: unknown, place: string): void {
  if (value === undefined && peer === "may") return;
  const problem = problemOf(kind, value);
  if (problem !== undefined) throw fieldError(place, name, value, problem);
}

/** What was expected, if the value is something else. */
function problemOf(kind: FieldKind, value: unknown): string | undefined {
  if (kind.type === "text") {
    const fits = typeof value === "string" && value !== "" && value.length <= kind.most;
    // deno-lint-ignore no-control-regex -- a peer's text is printed to terminals and into SVG
    return fits && !/[\u0000-\u001f\u007f]/.test(value) ? undefined : `text of 1 to ${kind.most} characters`;
  }
  if (kind.type === "count") {
    return Number.isSafeInteger(value) && (value as number) >= kind.least
      ? undefined
      : `a whole number from ${kind.least}`;
  }
  return typeof value === "number" && Number.isFinite(value) && value > 0 ? undefined : "a number above 0";
}

/** Computes time from speed or speed from time, and bandwidth from bytes. */
function withDerived(row: Row, place: string): Row {
  const full = row.subject === "generate" ? withTimeAndSpeed(row, place) : row;
  if (full.median_us === undefined) throw fieldError(place, "median_us", undefined, "a number above 0");
  const [low, high] = [full.low_us ?? full.median_us, full.high_us ?? full.median_us];
  if (low > full.median_us || high < full.median_us) {
    throw usageError(
      `${place}: expected low_us <= median_us <= high_us, found ${low}, ${full.median_us}, ${high}`,
    );
  }
  return full.bytes === undefined ? full : { ...full, gb_per_s: full.bytes / full.median_us / 1e3 };
}

function withTimeAndSpeed(row: Row, place: string): Row {
  const { prompt_tokens: prompt, decode_tokens: decode } = row;
  if ((prompt === undefined) === (decode === undefined)) {
    throw usageError(`${place}: expected one of "prompt_tokens" and "decode_tokens"`);
  }
  const tokens = prompt ?? row.batch;
  const median = row.median_us ?? (row.tokens_per_s === undefined ? undefined : tokens / row.tokens_per_s * 1e6);
  if (median === undefined) throw fieldError(place, "median_us", undefined, 'a number above 0, or "tokens_per_s"');
  return { ...row, median_us: median, tokens_per_s: row.tokens_per_s ?? tokens / median * 1e6 };
}

/** Whether a peer's row matches one of ours. */
function matches(peer: Row, ours: Row): boolean {
  return SETTINGS.every((name) => peer[name] === undefined || peer[name] === ours[name]);
}

/** The peers that match a cell, each once, with their speed over the dense row and their share of our peak. */
export class PeerTable {
  readonly #unused: Set<PeerRow>;

  constructor(readonly peers: readonly PeerRow[], readonly device: string) {
    this.#unused = new Set(peers);
  }

  /** Peers of the cell with these rows. */
  besides(rows: readonly Row[]): Row[] {
    const found = [...this.#unused].filter(({ row }) => rows.some((ours) => matches(row, ours)));
    for (const peer of found) this.#unused.delete(peer);
    return found.map(({ row }) => {
      const dense = rows.find((ours) => ours.arm === "dense" && sameWork(row, ours));
      const peak = dense?.peak_gb_per_s;
      const here = row.device === undefined || row.device === this.device;
      return {
        ...row,
        ...dense && { of_dense: dense.median_us / row.median_us },
        ...here && peak !== undefined && row.gb_per_s !== undefined && { of_peak: row.gb_per_s / peak },
      };
    });
  }

  /** Peers that matched no cell. */
  get unmatched(): readonly PeerRow[] {
    return [...this.#unused];
  }

  /** Devices of peers that differ from ours. */
  get otherDevices(): readonly string[] {
    return [...new Set(this.peers.flatMap(({ row }) => row.device ?? []))].filter((name) => name !== this.device);
  }
}

/** As `matches`, without the settings that a dense row lacks. */
function sameWork(peer: Row, dense: Row): boolean {
  return SETTINGS.every((name) => dense[name] === undefined || peer[name] === undefined || peer[name] === dense[name]);
}
