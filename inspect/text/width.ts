/**
 * Characters that take two columns in a terminal: East Asian wide and fullwidth characters, and emoji. (The npm package of the standard
 * library lacks the tables for its `unicode_width`.)
 */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/u;
/** Characters that take no column: combining marks, joiners, variation selectors. */
const EMPTY = /\p{Mark}|[\u200b-\u200f\u2060\ufeff]/u;

/** Columns of a text without control characters. */
export function textWidth(text: string): number {
  let columns = 0;
  for (const character of text) columns += EMPTY.test(character) ? 0 : WIDE.test(character) ? 2 : 1;
  return columns;
}
