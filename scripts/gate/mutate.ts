/** Mutations of JSON and bytes that a reader of untrusted files must survive, drawn from a seeded generator. */
import { Random } from "../../engine/sample/random.ts";

/** Values at the edges of what a field may contain. */
const EDGES: readonly unknown[] = [
  ...[0, -1, 1, 7, 8, 255, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 2 ** 63, 1e300, -1e300, 0.5, -0],
  ...[
    null,
    true,
    false,
    "",
    "a",
    "\u0000",
    "\ud800",
    "..",
    "../x.safetensors",
    "/etc/passwd",
    "__proto__",
    "constructor",
  ],
  ...["F32", "BF16", "toString", "BOOL", "C64", [], {}, [[]], [0], [0, 0], [1, 2], [2 ** 53, 0], { a: {} }],
];
const JUNK = ['"', "{", "}", "[", "]", ",", ":", "\\", "\\u0061", "0", "-", "1e999", "\u0000", "null", "//", " ", "é"];

/** Also works for the name "__proto__", for which an assignment creates no entry. */
function put(object: Record<string, unknown>, key: string, value: unknown): void {
  Object.defineProperty(object, key, { value, enumerable: true, writable: true, configurable: true });
}

/** Random draws of a fuzzer. */
export class Mutator {
  readonly #random: Random;

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  /** A whole number in [0, limit). */
  below(limit: number): number {
    return Math.floor(this.#random.nextFloat() * limit);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  chance(share: number): boolean {
    return this.#random.nextFloat() < share;
  }

  /** A copy of a JSON value with one to four places changed. */
  json<T>(value: T): T {
    const copy: { root: T } = { root: structuredClone(value) };
    for (let left = 1 + this.below(4); left > 0; left--) this.#changeOne(copy);
    return copy.root;
  }

  #changeOne(root: Record<string, unknown>): void {
    let [parent, key] = [root as Record<string, unknown>, "root"];
    for (;;) {
      const inner = parent[key];
      if (typeof inner !== "object" || inner === null || (parent !== root && this.chance(0.3))) break;
      const keys = Object.keys(inner);
      if (keys.length === 0) break;
      [parent, key] = [inner as Record<string, unknown>, this.pick(keys)];
    }
    const old = parent[key];
    if (typeof old === "number" && this.chance(0.6)) put(parent, key, this.#number(old));
    else if (this.chance(0.2) && parent !== root) delete parent[key];
    else if (this.chance(0.2) && !Array.isArray(parent)) put(parent, String(this.pick(EDGES)), old);
    else put(parent, key, structuredClone(this.pick(EDGES)));
  }

  #number(value: number): number {
    return this.pick([
      value + 1,
      value - 1,
      -value,
      value * 2,
      value + 4,
      value - 4,
      value / 2,
      value * 2 ** 40,
      value + 2 ** 53,
    ]);
  }

  /** Text with up to three edits that ignore its structure. */
  text(text: string): string {
    for (let left = this.below(4); left > 0; left--) {
      const at = this.below(text.length + 1);
      const end = Math.min(text.length, at + this.below(12));
      const middle = this.pick([
        this.pick(JUNK),
        text.slice(at, end).repeat(2),
        "",
        this.pick(JUNK).repeat(1 + this.below(40)),
      ]);
      text = text.slice(0, at) + middle + text.slice(end);
    }
    return text;
  }

  /** Bytes with up to eight of them changed, and sometimes truncated or extended. */
  bytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
    const length = this.chance(0.2) ? this.below(bytes.length + 64) : bytes.length;
    const copy = new Uint8Array(length);
    copy.set(bytes.subarray(0, length));
    if (length > 0) { for (let left = this.below(9); left > 0; left--) copy[this.below(length)] = this.below(256); }
    return copy;
  }
}
