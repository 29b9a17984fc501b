/** The document's text: how it is shown, how it is cut into blocks, and how it is searched. */

/** Controls that would be invisible or reorder text: C0 but tab and line feed, delete, C1, and the bidirectional marks. */
// deno-lint-ignore no-control-regex
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Text with a visible sign for each control character, so characters keep their places. */
export function shown(text) {
  return text.replaceAll("\r\n", "\u200b\n").replaceAll("\r", "\n").replace(CONTROLS, (control) => {
    const code = control.charCodeAt(0);
    return code < 32 ? String.fromCharCode(0x2400 + code) : code === 127 ? "\u2421" : "\u2426";
  });
}

/** One line of text for tables and labels. */
export function oneLine(text) {
  return shown(text).replace(/\s+/g, " ").trim();
}

/** Characters of a block: whole lines up to about the first number; longer lines are cut at a space before the second. */
const BLOCK = { lines: 1200, longest: 4000 };

/** Where the blocks of a text end. Each begins on a line of its own. */
export function blockEnds(text) {
  const ends = [];
  let start = 0;
  while (start < text.length) {
    const limit = start + BLOCK.longest;
    let end = lineEnd(text, start);
    while (end < text.length && end - start < BLOCK.lines) {
      const next = lineEnd(text, end);
      if (next > limit) break;
      end = next;
    }
    ends.push(start = end > limit ? cutAt(text, start, limit) : end);
  }
  return ends;
}

function lineEnd(text, start) {
  const at = text.indexOf("\n", start);
  return at < 0 ? text.length : at + 1;
}

/** Behind the last space before a limit; without one, at the limit, but never within a character. */
function cutAt(text, start, limit) {
  const space = text.lastIndexOf(" ", limit - 1);
  if (space > start) return space + 1;
  const isHalf = (text.charCodeAt(limit) & 0xfc00) === 0xdc00;
  return isHalf ? limit + 1 : limit;
}

/** Hits that are kept; more than anyone steps through. */
export const MOST_HITS = 10_000;

/** Places `[start, end)` of a query, upper case and lower case alike; a space finds any white space. */
export function findAll(text, query) {
  const words = query.split(/\s+/).map((word) => word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
  if (query.trim() === "") return [];
  const hits = [];
  for (const { 0: found, index } of text.matchAll(new RegExp(words.join("\\s+"), "giu"))) {
    hits.push([index, index + found.length]);
    if (hits.length === MOST_HITS) break;
  }
  return hits;
}
