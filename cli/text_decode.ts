import { PagesiftError } from "../engine/errors.ts";
import { formatCount } from "../engine/text/format.ts";

const REPLACEMENT = "\uFFFD";

/** Text read from a file or from stdin, and how many characters replace invalid bytes. */
export interface DecodedText {
  text: string;
  replaced: number;
}

/**
 * Decodes UTF-8 and drops one byte order mark. Invalid bytes are refused with their offset, since a model would
 * answer a damaged prompt without complaint; `lossy` replaces them instead.
 */
export function decodeText(bytes: Uint8Array, name: string, lossy: boolean): DecodedText {
  if (lossy) return decodeLossy(bytes);
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
    throw new PagesiftError("usage", `${name} is gzip data, not text; unpack it first, for example with "gunzip -c"`);
  }
  const nul = bytes.indexOf(0);
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    if (nul < 0) return { text, replaced: 0 };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    const offset = firstInvalidByte(bytes);
    if (nul < 0 || offset < nul) throw notText(name, `the byte 0x${bytes[offset]!.toString(16)} at`, offset, bytes);
  }
  throw notText(name, "a NUL byte at", nul, bytes);
}

/** Refuses text that UTF-8 cannot encode, which JSON escapes can spell. */
export function checkText(text: string, name: string, lossy: boolean): DecodedText {
  const clean = text.toWellFormed().replaceAll("\0", REPLACEMENT);
  if (clean === text) return { text, replaced: 0 };
  if (!lossy) {
    throw new PagesiftError("usage", `${name} contains a NUL or a lone surrogate; --lossy replaces such characters`);
  }
  return { text: clean, replaced: count(clean, REPLACEMENT) - count(text, REPLACEMENT) };
}

function decodeLossy(bytes: Uint8Array): DecodedText {
  const decoded = new TextDecoder().decode(bytes);
  const text = decoded.replaceAll("\0", REPLACEMENT);
  return { text, replaced: count(text, REPLACEMENT) - countEncodedReplacements(bytes) };
}

function notText(name: string, what: string, offset: number, bytes: Uint8Array): PagesiftError {
  const utf16 = bytes[0] === 0xff && bytes[1] === 0xfe || bytes[0] === 0xfe && bytes[1] === 0xff;
  const hint = utf16 ? "it looks like UTF-16, convert it first" : "--lossy replaces invalid bytes";
  return new PagesiftError("usage", `${name} is not UTF-8 text: ${what} offset ${formatCount(offset)}; ${hint}`);
}

function count(text: string, character: string): number {
  return text.split(character).length - 1;
}

/** Replacement characters that the input itself contains. */
function countEncodedReplacements(bytes: Uint8Array): number {
  let found = 0;
  for (let at = bytes.indexOf(0xef); at >= 0; at = bytes.indexOf(0xef, at + 1)) {
    if (bytes[at + 1] === 0xbf && bytes[at + 2] === 0xbd) found++;
  }
  return found;
}

/** Offset of the first byte that does not begin a complete character, or -1. */
function firstInvalidByte(bytes: Uint8Array): number {
  for (let at = 0; at < bytes.length;) {
    const length = characterLength(bytes, at);
    if (length === 0) return at;
    at += length;
  }
  return -1;
}

/** Length in bytes of the character at an offset, or 0 if none begins there; after table 3-7 of the Unicode standard. */
function characterLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at]!;
  if (first < 0x80) return 1;
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4) return 0;
  const [low, high] = secondByteRange(first);
  const second = bytes[at + 1] ?? 0;
  if (second < low || second > high) return 0;
  for (let i = 2; i < length; i++) if ((bytes[at + i] ?? 0) >> 6 !== 2) return 0;
  return length;
}

/** Overlong forms, surrogates and codes past U+10FFFF are excluded by the second byte. */
function secondByteRange(first: number): [number, number] {
  switch (first) {
    case 0xe0:
      return [0xa0, 0xbf];
    case 0xed:
      return [0x80, 0x9f];
    case 0xf0:
      return [0x90, 0xbf];
    case 0xf4:
      return [0x80, 0x8f];
    default:
      return [0x80, 0xbf];
  }
}
