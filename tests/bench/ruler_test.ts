import { assert, assertEquals, assertThrows } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { RULER_TASKS, rulerDocument, type RulerTask } from "../../bench/ruler.ts";
import type { TrialDocument } from "../../bench/trials.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { Tokenizer } from "../../engine/text/tokenizer.ts";

const folder = (path: string): string => fromFileUrl(new URL(`../../${path}`, import.meta.url));
const tokenizer = await Tokenizer.load(folder("models/default"), { vocabSize: 4096 });
const text = Deno.readTextFileSync(folder("examples/war_of_the_worlds.txt"));
const encode = (prompt: string, answerStart: string): number[] =>
  tokenizer.encode(answerStart === "" ? prompt : `${prompt}\n${answerStart}`);
const LENGTH = 1500;

function documentOf(task: RulerTask, seed = 1, lengthTokens = LENGTH): TrialDocument {
  return rulerDocument(task, encode, text, { lengthTokens, questions: 3, seed });
}

/** What appears in the document, and how often. */
function countIn(document: TrialDocument, part: string): number {
  return tokenizer.decode(document.ids).split(part).length - 1;
}

for (const task of RULER_TASKS) {
  Deno.test(`${task} fills the length and never exceeds it`, () => {
    const { ids } = documentOf(task);
    assert(ids.length <= LENGTH && ids.length > 0.92 * LENGTH, `${ids.length}`);
  });

  Deno.test(`${task} holds every accepted string`, () => {
    const document = documentOf(task);
    const accepted = document.trials.flatMap((trial) => trial.accepted);
    assertEquals(accepted.filter((each) => countIn(document, each) === 0), []);
  });

  Deno.test(`${task} asks the same with the same seed and something else with another one`, () => {
    assertEquals(documentOf(task), documentOf(task));
    const accepted = (seed: number): unknown => documentOf(task, seed).trials.map((trial) => trial.accepted);
    assert(JSON.stringify(accepted(1)) !== JSON.stringify(accepted(2)));
  });

  Deno.test(`${task} refuses a length without room for what it asks about`, () => {
    assertEquals(assertThrows(() => documentOf(task, 1, 20), PagesiftError, "--length 20").kind, "usage");
  });
}

Deno.test("multikey and qa ask several questions about one document, the others one", () => {
  const counts = RULER_TASKS.map((task) => documentOf(task).trials.length);
  assertEquals(counts, [1, 3, 1, 1, 1, 1, 1, 3]);
});

Deno.test("multivalue gives one key four values, multiquery asks for four keys", () => {
  const [values, queries] = [documentOf("multivalue"), documentOf("multiquery")];
  const keys = (document: TrialDocument): Set<string> =>
    new Set([...tokenizer.decode(document.ids).matchAll(/numbers for (\w+ \w+) is/g)].map(([, key = ""]) => key));
  assertEquals([keys(values).size, values.trials[0]?.accepted.length], [1, 4]);
  assertEquals([keys(queries).size, queries.trials[0]?.accepted.length], [4, 4]);
});

Deno.test("vt assigns the number to the first variable, and each variable to the next", () => {
  const document = documentOf("vt");
  const [first = "", ...others] = document.trials[0]?.accepted ?? [];
  const value = /value (\d{5})/.exec(tokenizer.decode(document.trials[0]?.ids ?? []))?.[1] ?? "none";
  assertEquals(countIn(document, `VAR ${first} = ${value}.`), 1);
  assertEquals(others.map((name, index) => countIn(document, `VAR ${name} = VAR ${[first, ...others][index]}.`)), [
    ...[1, 1, 1, 1],
  ]);
});

Deno.test("cwe lists its common words ten times as often as all others", () => {
  const document = documentOf("cwe");
  const entries = [...tokenizer.decode(document.ids).matchAll(/\d+\. (\S+)/g)].map(([, word = ""]) => word);
  const counts = Map.groupBy(entries, (word) => word);
  const accepted = document.trials[0]?.accepted ?? [];
  const [common, others] = [true, false].map((is) =>
    new Set([...counts].filter(([word]) => accepted.includes(word) === is).map(([, all]) => all.length))
  );
  assertEquals([common, others], [new Set([10]), new Set([1])]);
});

Deno.test("fwe asks for the three coded words that appear most often, without the dots", () => {
  const document = documentOf("fwe");
  const coded = tokenizer.decode(document.ids).split("\n")[1]?.trim().split(" ") ?? [];
  const ranked = [...Map.groupBy(coded, (word) => word)].toSorted((a, b) => b[1].length - a[1].length);
  assertEquals(ranked.slice(0, 4).map(([word]) => word), ["...", ...document.trials[0]?.accepted ?? []]);
});

Deno.test("qa has the answer once, and the same statement about other towns", () => {
  const document = documentOf("qa");
  const decoded = tokenizer.decode(document.ids);
  const stated = document.trials.map(({ accepted: [value = ""] }) =>
    decoded.match(new RegExp(`(have made|painted|by) ${value}\\b`, "g"))?.length
  );
  assertEquals(stated, [1, 1, 1]);
  assertEquals(["have made", "town hall painted", "people have reached"].map((part) => countIn(document, part)), [
    ...[10, 10, 10],
  ]);
});
