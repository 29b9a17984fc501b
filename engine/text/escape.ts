import { PagesiftError } from "../errors.ts";

/**
 * Controls that could move the cursor, retitle the terminal or reorder text: C0 but tab and newline, delete, C1, and the
 * bidirectional marks.
 */
// deno-lint-ignore no-control-regex
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

const NAMES: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** Makes control characters visible, so that a model's text cannot drive the terminal. */
export function escapeControls(text: string): string {
  return text.replace(CONTROLS, spellOut);
}

/** The text as a single line, for messages. */
export function oneLine(text: string): string {
  return escapeControls(text.trim()).replace(/[\n\t]/g, spellOut);
}

/** Reads the escapes of a `--stop` value, since shells pass `"\n"` on as two characters. */
export function unescapeText(text: string): string {
  return text.replace(/\\(u\{([0-9a-f]{1,6})\}|.?)/gis, (whole, escape: string, hex: string | undefined) => {
    const character = hex === undefined ? SIMPLE_ESCAPES[escape] : codePoint(hex);
    if (character !== undefined) return character;
    throw new PagesiftError(
      "usage",
      String.raw`--stop "${text}" contains the unknown escape "${whole}"; expected \n, \r, \t, \\ or \u{hex}`,
    );
  });
}

const SIMPLE_ESCAPES: Record<string, string> = { n: "\n", r: "\r", t: "\t", "\\": "\\" };

function codePoint(hex: string): string | undefined {
  const code = parseInt(hex, 16);
  return code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff) ? String.fromCodePoint(code) : undefined;
}

function spellOut(character: string): string {
  const code = character.charCodeAt(0);
  return NAMES[character] ?? (code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`);
}
