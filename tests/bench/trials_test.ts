import { assert, assertEquals, assertThrows } from "@std/assert";
import { encodeTrials, fitTrials, type Question, scoreAnswer } from "../../bench/trials.ts";
import { PagesiftError } from "../../engine/errors.ts";

/** One id per character, with an end as a chat template adds one. */
function encode(prompt: string, answerStart: string): number[] {
  return [...`<${prompt}>${answerStart}`].map((character) => character.charCodeAt(0));
}

const asking = (question: string): Question => ({
  ...{ question, answerStart: "Answer:", accepted: ["x"], match: "any", answerTokens: 4 },
});
const text = { context: "Some text.", questions: [asking("Who?"), asking("Where?")] };

Deno.test("encodeTrials() puts everything before the first question into the document", () => {
  assertEquals(encodeTrials(encode, text).ids, encode("Some text.\n\n", "").slice(0, -1));
});

Deno.test("encodeTrials() continues the document with each question and the beginning of its answer", () => {
  const { ids, trials } = encodeTrials(encode, text);
  assertEquals(trials.map((trial) => [...ids, ...trial.ids]), [
    encode("Some text.\n\nWho?", "Answer:"),
    encode("Some text.\n\nWhere?", "Answer:"),
  ]);
});

const make = (units: number): typeof text => ({ ...text, context: "word ".repeat(units) });

Deno.test("fitTrials() takes the longest text within the length", () => {
  const { ids } = fitTrials(encode, make, { task: "single", lengthTokens: 100, most: 1000 });
  assert(ids.length <= 100 && ids.length > 100 - 2 * "word ".length);
});

Deno.test("fitTrials() takes no more units than there are", () => {
  const { ids } = fitTrials(encode, make, { task: "single", lengthTokens: 100, most: 3 });
  assertEquals(ids.length, encode("word word word \n\n", "").length - 1);
});

Deno.test("fitTrials() refuses a length that the text exceeds without any unit", () => {
  const fit = (): unknown => fitTrials(encode, make, { task: "single", lengthTokens: 2, most: 10 });
  assertEquals(assertThrows(fit, PagesiftError, "--length 2").kind, "usage");
});

const several = ["12345", "Blue"];
const scores: [answer: string, match: Question["match"], score: number][] = [
  ["It is 12345 and blue.", "all", 1],
  ["It is 12345.", "all", 0.5],
  ["It is blue.", "any", 1],
  ["It is 1234.", "any", 0],
  [" 12345, I think", "start", 1],
  ["I think 12345", "start", 0],
];
for (const [answer, match, score] of scores) {
  Deno.test(`scoreAnswer() of "${answer}" with ${match} is ${score}`, () => {
    assertEquals(scoreAnswer(answer, { accepted: several, match }), score);
  });
}
