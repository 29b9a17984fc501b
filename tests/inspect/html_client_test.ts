/** What the HTML report computes in the browser, without a browser. */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { readReport } from "../../inspect/html/client/recording.js";
import { blockEnds, findAll, shown } from "../../inspect/html/client/text.js";
import { figuresOf, scopeOf, valuesOf } from "../../inspect/html/client/values.js";
import { splitWords, tokensOf } from "../../inspect/html/client/words.js";
import { htmlData } from "../../inspect/html/data.ts";
import { makeReport, type Selectors } from "../../inspect/report.ts";
import { syntheticRecording } from "./synthetic.ts";

const SHAPE = { pages: 60, layers: 3, heads: 2, steps: 4, budgetPages: 8 };

/** Words as `text|steps`. */
function words(...pieces: string[]): string[] {
  return splitWords(pieces.map((text, step) => ({ text, step }))).map(({ text, steps }) =>
    `${text}|${steps.join("-")}`
  );
}

Deno.test("splitWords() joins tokens to words and keeps punctuation and spaces with the word before", () => {
  assertEquals(words(" sil", "ver", " lan", "tern", ",", " ", "\n", "(it", "'s", ")."), [
    ...[" silver|0-1", " lantern, \n|2-6", "(it's).|7-9"],
  ]);
});

Deno.test("splitWords() gives digits of one number to one word, with the space before it", () => {
  assertEquals(words(" ", "4", "8", "2"), [" 482|0-3"]);
});

Deno.test("splitWords() finds words in text without spaces", () => {
  assertEquals(words("東京", "は", "大", "きい").length > 1, true);
});

Deno.test("splitWords() gives a token of several words to one word", () => {
  assertEquals(words("a b", " c"), ["a b|0-0", " c|1-1"]);
});

Deno.test("tokensOf() gives a character that the context cuts off to the last token", () => {
  const tokens = tokensOf({
    ...{ text: "Hi so\ufffd", tokenEnds: [2, 5, 6], promptTokens: 1, steps: 2, answerText: " so é" },
  });
  assertEquals(tokens.map(({ text }) => text), [" so", "", " é"]);
});

for (const dense of [false, true]) {
  for (const selectors of [{}, { layer: 1 }, { head: 1 }, { step: 2 }, { step: 0, layer: 2, head: 0 }] as Selectors[]) {
    const name = JSON.stringify(selectors);
    Deno.test(`the report shows what the terminal shows under ${name}${dense ? ", every page read" : ""}`, async () => {
      const recording = syntheticRecording({ ...SHAPE, dense });
      const { pages } = makeReport(recording, selectors);
      const { trace, view } = await htmlData(makeReport(recording, {}), { by: "mass", facts: [], tables: [] });
      const data = await readReport(trace, view);
      const { step, layer, head } = selectors;
      const scope = scopeOf(data, { steps: step === undefined ? undefined : [step + 1, step + 1], layer, head });
      for (const [measure, wanted] of Object.entries({ ...pages, missed: pages.lost })) {
        if (measure === "lost") continue;
        const { pages: values } = valuesOf(data, measure, scope);
        for (let page = 0; page < SHAPE.pages; page++) {
          assertAlmostEquals(values[page]!, wanted[page]!, 1e-5, `${measure} of page ${page}`);
          const { whole } = figuresOf(data, scope, page);
          assertAlmostEquals(whole[measure as "mass"], wanted[page]!, 1e-5, `${measure} of page ${page} alone`);
        }
      }
    });
  }
}

Deno.test("blockEnds() cuts text at line ends, and long lines at spaces", () => {
  const text = `${"short line\n".repeat(400)}${"long ".repeat(2000)}\n${"x".repeat(9000)}`;
  const ends = blockEnds(text);
  assertEquals(ends.at(-1), text.length);
  const before = ends.slice(0, -1).map((end) => text[end - 1]);
  assertEquals(before.filter((character) => character !== "\n" && character !== " " && character !== "x"), []);
  const lengths = ends.map((end, at) => end - (ends[at - 1] ?? 0));
  assertEquals(lengths.filter((length) => length > 4001), []);
});

Deno.test("blockEnds() cuts no character in two", () => {
  const text = `x${"😀".repeat(5000)}`;
  assertEquals(blockEnds(text).filter((end) => /[\udc00-\udfff]/.test(text[end] ?? "")), []);
});

Deno.test("shown() makes control characters visible and keeps every character at its place", () => {
  const text = "a\x1b[31m\x07\u202eb\r\nc\td\x7f\x9b";
  assertEquals(shown(text), "a␛[31m␇␦b\u200b\nc\td␡␦");
  assertEquals(shown(text).length, text.length);
});

Deno.test("findAll() ignores case and finds words across a line break, and takes signs as they are", () => {
  assertEquals(findAll("The Silver\nlantern. İ silver  LANTERN", "silver lantern"), [[4, 18], [22, 37]]);
  assertEquals(findAll("a.b a+b (a-b) [x]/\\", "a+b"), [[4, 7]]);
  assertEquals(findAll("[x]/\\-", "[x]/\\-"), [[0, 6]]);
  assertEquals(findAll("text", "  "), []);
});
