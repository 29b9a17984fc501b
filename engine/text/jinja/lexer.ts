/** Splits a template into tokens, with `trim_blocks` and `lstrip_blocks` on, as transformers sets them. */
import { TemplateError, unsupported } from "./errors.ts";

export type Token =
  /** Text between tags. */
  | { kind: "data"; value: string }
  | { kind: "string"; value: string }
  | { kind: "integer"; value: bigint }
  | { kind: "float"; value: number }
  | { kind: "name" | "operator"; value: string }
  | { kind: "variable_begin" | "variable_end" | "block_begin" | "block_end" | "end"; value: string };

/** What Python's `\s` and `str.strip` take for white space. */
export const PYTHON_SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const SPACE = new RegExp(`[${PYTHON_SPACE}]*`, "y");
const ONLY_SPACE = new RegExp(`^[${PYTHON_SPACE}]+$`);
const TRAILING_SPACE = new RegExp(`[${PYTHON_SPACE}]$`);
const RAW = new RegExp(`\\{%([-+]?)[${PYTHON_SPACE}]*raw[${PYTHON_SPACE}]*(-?)%\\}`, "y");
const END_RAW = new RegExp(`\\{%([-+]?)[${PYTHON_SPACE}]*endraw[${PYTHON_SPACE}]*([-+]?)%\\}`, "y");
const FLOAT = /(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?[eE][+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/y;
const INTEGER = /0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0[xX](?:_?[\da-fA-F])+|[1-9](?:_?\d)*|0(?:_?0)*/y;
const NAME = /[\p{L}\p{Nl}_\p{M}\p{Nd}\p{Pc}]+/uy;
const IDENTIFIER = /^[\p{ID_Start}_][\p{ID_Continue}]*$/u;
const OPERATOR = /\/\/|\*\*|==|!=|>=|<=|[-+/*%~[\](){}><=.:|,;]/y;
const BRACKETS: Readonly<Record<string, string>> = { ")": "(", "]": "[", "}": "{" };

function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && TRAILING_SPACE.test(text[end - 1]!)) end--;
  return text.slice(0, end);
}

/** The tokens of a template. @throws {TemplateError} */
export function tokenize(source: string): Token[] {
  return new Lexer(source.replace(/\r\n?/g, "\n").replace(/\n$/, "")).run();
}

class Lexer {
  readonly #tokens: Token[] = [];
  #at = 0;
  /** Whether what was read last ended a line, or nothing was read. */
  #lineStarts = true;

  constructor(readonly source: string) {}

  run(): Token[] {
    while (this.#at < this.source.length) this.#root();
    this.#tokens.push({ kind: "end", value: "" });
    return this.#tokens;
  }

  /** Text up to the next tag, and that tag. */
  #root(): void {
    const { source } = this;
    let start = this.#at - 1;
    do start = source.indexOf("{", start + 1); while (start >= 0 && !"{%#".includes(source[start + 1] || "x"));
    if (start < 0) {
      this.#data(source.slice(this.#at));
      this.#at = source.length;
      return;
    }
    const kind = source[start + 1]!;
    const text = source.slice(this.#at, start);
    const sign = "-+".includes(source[start + 2] || "x") ? source[start + 2]! : "";
    // "{{+" does not exist: the plus belongs to the expression.
    const mark = kind === "{" && sign === "+" ? "" : sign;
    this.#data(this.#before(text, mark, kind !== "{"));
    this.#at = start + 2 + mark.length;
    if (kind === "#") return this.#comment();
    RAW.lastIndex = start;
    const raw = kind === "%" ? RAW.exec(source) : null;
    if (raw) return this.#raw(start + raw[0].length, raw[2] === "-");
    this.#tokens.push({ kind: kind === "{" ? "variable_begin" : "block_begin", value: "" });
    this.#expression(kind === "{" ? "}}" : "%}");
  }

  /** Text before a tag: "-" strips it, and a block that is the first on its line strips the indentation. */
  #before(text: string, mark: string, isBlock: boolean): string {
    if (mark === "-") return trimEnd(text);
    if (mark === "+" || !isBlock) return text;
    const line = text.lastIndexOf("\n") + 1;
    return (line > 0 || this.#lineStarts) && ONLY_SPACE.test(text.slice(line)) ? text.slice(0, line) : text;
  }

  #data(value: string): void {
    if (value !== "") this.#tokens.push({ kind: "data", value });
  }

  /** Moves past the end of a tag: "-" strips all white space behind it, a plain block strips one line end. */
  #after(mark: string, trims: boolean): void {
    const start = this.#at;
    if (mark === "-") {
      SPACE.lastIndex = this.#at;
      this.#at += SPACE.exec(this.source)![0].length;
    } else if (trims && mark !== "+" && this.source[this.#at] === "\n") this.#at++;
    this.#lineStarts = this.#at > start && this.source[this.#at - 1] === "\n";
  }

  #comment(): void {
    const end = this.source.indexOf("#}", this.#at);
    if (end < 0) throw new TemplateError("a comment does not end");
    const mark = end > this.#at && "-+".includes(this.source[end - 1]!) ? this.source[end - 1]! : "";
    this.#at = end + 2;
    this.#after(mark, true);
  }

  #raw(start: number, strips: boolean): void {
    this.#at = start;
    this.#after(strips ? "-" : "", false);
    for (let at = this.#at;; at++) {
      at = this.source.indexOf("{%", at);
      if (at < 0) throw new TemplateError("a raw block does not end");
      END_RAW.lastIndex = at;
      const end = END_RAW.exec(this.source);
      if (!end) continue;
      this.#data(this.#before(this.source.slice(this.#at, at), end[1]!, true));
      this.#at = at + end[0].length;
      return this.#after(end[2]!, true);
    }
  }

  #expression(close: "}}" | "%}"): void {
    const { source } = this;
    const open: string[] = [];
    while (true) {
      SPACE.lastIndex = this.#at;
      this.#at += SPACE.exec(source)![0].length;
      if (this.#at >= source.length) throw new TemplateError(`a tag does not end with "${close}"`);
      if (open.length === 0) {
        const mark = "-+".includes(source[this.#at]!) && source.startsWith(close, this.#at + 1)
          ? source[this.#at]!
          : "";
        if (source.startsWith(close, this.#at + mark.length) && !(close === "}}" && mark === "+")) {
          this.#at += mark.length + 2;
          this.#tokens.push({ kind: close === "}}" ? "variable_end" : "block_end", value: "" });
          return this.#after(mark, close === "%}");
        }
      }
      const token = this.#token();
      this.#tokens.push(token);
      if (token.kind !== "operator") continue;
      if ("([{".includes(token.value)) open.push(token.value);
      else if (token.value in BRACKETS && open.pop() !== BRACKETS[token.value]) {
        throw new TemplateError(`unexpected "${token.value}"`);
      }
    }
  }

  #token(): Token {
    const first = this.source[this.#at]!;
    if (first === "'" || first === '"') return { kind: "string", value: this.#string(first) };
    // A digit behind a dot is an index, as in "x.0".
    const float = this.source[this.#at - 1] === "." ? undefined : this.#match(FLOAT);
    if (float !== undefined) return { kind: "float", value: Number(float.replaceAll("_", "")) };
    const integer = this.#match(INTEGER);
    if (integer !== undefined) return { kind: "integer", value: BigInt(integer.replaceAll("_", "")) };
    const name = this.#match(NAME);
    if (name !== undefined) {
      if (!IDENTIFIER.test(name)) throw new TemplateError(`"${name}" is not a name`);
      return { kind: "name", value: name };
    }
    const operator = this.#match(OPERATOR);
    if (operator !== undefined) return { kind: "operator", value: operator };
    throw new TemplateError(`unexpected character "${first}"`);
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.source)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #string(quote: string): string {
    let end = this.#at + 1;
    while (end < this.source.length && this.source[end] !== quote) end += this.source[end] === "\\" ? 2 : 1;
    if (end >= this.source.length) throw new TemplateError("a string does not end");
    const inside = this.source.slice(this.#at + 1, end);
    this.#at = end + 1;
    return unescape(inside);
  }
}

const SIMPLE: Readonly<Record<string, string>> = {
  ...{ "\n": "", "\\": "\\", "'": "'", '"': '"', a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" },
};

/** Reads Python's escapes; an unknown one stays as it is. */
function unescape(text: string): string {
  return text.replace(
    /\\(?:([0-7]{1,3})|x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([\s\S]))/g,
    (whole, octal?: string, ...rest: (string | undefined)[]) => {
      if (octal !== undefined) return String.fromCodePoint(parseInt(octal, 8));
      const hex = rest[0] ?? rest[1] ?? rest[2];
      if (hex !== undefined) {
        const code = parseInt(hex, 16);
        if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
          throw new TemplateError(`"${whole}" is not a character`);
        }
        return String.fromCodePoint(code);
      }
      const letter = rest[3]!;
      if (letter === "N") throw unsupported('the escape "\\N{...}"');
      if ("xuU".includes(letter)) throw new TemplateError(`the escape "\\${letter}" is cut short`);
      return SIMPLE[letter] ?? whole;
    },
  );
}
