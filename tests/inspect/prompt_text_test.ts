import { assertEquals } from "@std/assert";
import { ANSWER, LineIndex, locateParts, PageTexts, spellTokens, TEMPLATE } from "../../inspect/prompt_text.ts";

/** One token a character; `<` and `>` are silent, and spelt out when asked for. */
const decoder = {
  decode: (ids: readonly number[]) => String.fromCodePoint(...ids),
  isSilent: (id: number) => id === 60,
  stream: () => ({ push: (id: number) => String.fromCodePoint(id), flush: () => "" }),
};

const codes = (text: string): number[] => [...text].map((character) => character.codePointAt(0)!);
const A = "one\ntwo\nthree\n\n";
const B = "four\nfive";
const PROMPT = A + B;
const PARTS = [{ name: "a.txt", start: 0, end: A.length }, { name: "b.txt", start: A.length, end: PROMPT.length }];

/** Texts of pages of four characters of a text that the parts are looked for in. */
function pagesOf(text: string, pageSize = 4): PageTexts {
  const { spans } = locateParts(text, PROMPT, PARTS);
  const tokenEnds = Uint32Array.from({ length: text.length }, (_, index) => index + 1);
  return new PageTexts({ text, tokenEnds, spans }, pageSize);
}

Deno.test("spellTokens() spells special tokens out and ends each token", () => {
  assertEquals(spellTokens(decoder, codes("<ab")), { text: "<ab", tokenEnds: Uint32Array.of(1, 2, 3) });
});

Deno.test("LineIndex counts a line break to the line that it ends", () => {
  const lines = new LineIndex("a\nb\n\nc");
  assertEquals([0, 1, 2, 3, 4, 5].map((at) => lines.at(at)), [1, 1, 2, 2, 3, 4]);
});

Deno.test("PageTexts.places() names file and lines", () => {
  assertEquals(pagesOf(PROMPT).places(1), [{ source: "a.txt", firstLine: 2, lastLine: 2, share: 1 }]);
});

Deno.test("PageTexts.places() starts at line 1 in the second file", () => {
  assertEquals([4, 5].map((page) => pagesOf(PROMPT).places(page)[0]), [
    { source: "b.txt", firstLine: 1, lastLine: 1, share: 1 },
    { source: "b.txt", firstLine: 2, lastLine: 2, share: 1 },
  ]);
});

Deno.test("PageTexts.places() puts the file with most of the page first", () => {
  assertEquals(pagesOf(PROMPT, 18).places(0).map(({ source, share }) => [source, Math.round(18 * share)]), [
    ["a.txt", 15],
    ["b.txt", 3],
  ]);
});

Deno.test("PageTexts.places() does not count the blank line between two files", () => {
  assertEquals(pagesOf(PROMPT, 15).places(0), [{ source: "a.txt", firstLine: 1, lastLine: 3, share: 1 }]);
});

Deno.test("locateParts() finds a prompt inside a chat template that trims it", () => {
  const { spans, unmatched } = locateParts("<user>one\ntwo<end>", "\n one\ntwo\n", [{
    name: "a.txt",
    start: 0,
    end: 10,
  }]);
  assertEquals([spans, unmatched], [[{ source: "a.txt", start: 6, end: 13, line: 2 }], 11]);
});

Deno.test("PageTexts.places() calls the text of a template a template", () => {
  const text = `<u>${PROMPT}`;
  assertEquals(pagesOf(text, 3).places(0), [{ source: TEMPLATE, firstLine: 0, lastLine: 0, share: 1 }]);
});

Deno.test("locateParts() finds both ends of a prompt that was cut in the middle", () => {
  const lines = Array.from({ length: 60 }, (_, line) => `line number ${line}`);
  const whole = lines.join("\n");
  const cut = [...lines.slice(0, 10), ...lines.slice(50)].join("\n");
  const { spans, unmatched } = locateParts(cut, whole, [{ name: "a", start: 0, end: whole.length }]);
  assertEquals(unmatched, 0);
  assertEquals(spans.map(({ line }) => line), [1, 51]);
});

Deno.test("locateParts() finds the end of a prompt whose head was dropped", () => {
  const whole = Array.from({ length: 60 }, (_, line) => `line number ${line}`).join("\n");
  const { spans } = locateParts(whole.slice(-100), whole, [{ name: "a", start: 0, end: whole.length }]);
  assertEquals(spans.length, 1);
  assertEquals(spans[0]!.end - spans[0]!.start, 100);
});

Deno.test("PageTexts.places() gives an answer no lines", () => {
  const texts = new PageTexts({
    text: "abcd",
    tokenEnds: Uint32Array.of(1, 2, 3, 4),
    spans: [{ source: ANSWER, start: 0, end: 4, line: 0 }],
  }, 4);
  assertEquals(texts.places(0), [{ source: ANSWER, firstLine: 0, lastLine: 0, share: 1 }]);
});
