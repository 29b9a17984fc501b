import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { fileDocuments, parseTaskLines } from "../../bench/task_file.ts";
import { PagesiftError } from "../../engine/errors.ts";

const good = { context: "A text.", question: "Who?", answers: ["Ann", "Anne"] };

function parse(...lines: unknown[]): ReturnType<typeof parseTaskLines> {
  return parseTaskLines("q.jsonl", lines.map((line) => JSON.stringify(line)).join("\n"));
}

Deno.test("parseTaskLines() accepts any of the answers unless a line sets match", () => {
  const questions = parse(good, { ...good, match: "all" }).flatMap((text) => text.questions);
  assertEquals(questions.map(({ accepted, match }) => [accepted, match]), [[good.answers, "any"], [
    good.answers,
    "all",
  ]]);
});

Deno.test("parseTaskLines() reads the field names of LongBench and ignores its others", () => {
  const line = { context: "A text.", input: "Who?", answers: ["Ann"], length: 3, all_classes: null, _id: "7" };
  assertEquals(parse(line)[0]?.questions[0]?.question, "Who?");
});

Deno.test("parseTaskLines() takes a single answer as text", () => {
  assertEquals(parse({ ...good, answers: "Ann" })[0]?.questions[0]?.accepted, ["Ann"]);
});

const wrong: [line: string, found: RegExp][] = [
  ["{", /not JSON/],
  ["[]", /not an object/],
  [JSON.stringify({ ...good, context: undefined }), /"context" is missing/],
  [JSON.stringify({ ...good, question: " " }), /"question"/],
  [JSON.stringify({ ...good, answers: [] }), /"answers"/],
  [JSON.stringify({ ...good, answers: [""] }), /"answers"/],
  [JSON.stringify({ ...good, match: "most" }), /"match"/],
  [JSON.stringify({ ...good, answer_tokens: 0 }), /"answer_tokens"/],
];
for (const [line, found] of wrong) {
  Deno.test(`parseTaskLines() names the line of ${line} in one line`, () => {
    const text = `${JSON.stringify(good)}\n\n${line}\n`;
    const error = assertThrows(() => parseTaskLines("q.jsonl", text), PagesiftError);
    assertEquals(error.kind, "usage");
    assertMatch(error.message, /^q\.jsonl:3[^\n]*$/);
    assertMatch(error.message, found);
  });
}

Deno.test("parseTaskLines() refuses a file without lines", () => {
  assertThrows(() => parseTaskLines("q.jsonl", "\n\n"), PagesiftError, "q.jsonl");
});

const encode = (prompt: string, answerStart: string): number[] =>
  [...prompt, ...answerStart].map((character) => character.charCodeAt(0));
const sized = (characters: number): typeof good => ({ ...good, context: "x".repeat(characters) });

Deno.test("fileDocuments() leaves out and counts what the budget covers or the context cannot hold", () => {
  const lines = parse(sized(40), sized(60), sized(200), sized(1000));
  const { documents, short, long } = fileDocuments(lines, encode, { mostBudgetTokens: 64 }, 500);
  assertEquals([documents.length, short, long], [1, 2, 1]);
});

Deno.test("fileDocuments() reads a context once for neighbouring questions about it", () => {
  const lines = parse(sized(200), { ...sized(200), question: "Where?" }, sized(201));
  const { documents } = fileDocuments(lines, encode, { mostBudgetTokens: 64 }, 500);
  assertEquals(documents.map(({ trials }) => trials.length), [2, 1]);
});
