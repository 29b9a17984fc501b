import { assert, assertEquals, assertThrows } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { makeFacts, needleDocument, pairsDocument, proseIds, question } from "../../bench/documents.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { Random } from "../../engine/sample/random.ts";
import { Tokenizer } from "../../engine/text/tokenizer.ts";

const tokenizer = await Tokenizer.load(fromFileUrl(new URL("../../models/default", import.meta.url)), {
  vocabSize: 4096,
});
const prose = proseIds(tokenizer, "x", "The ships lay quietly in the harbour. ".repeat(200), 1000);

Deno.test("makeFacts() gives different names, ascending depths and five digits", () => {
  const facts = makeFacts(new Random(1), 40);
  assertEquals(new Set(facts.map(({ name }) => name)).size, 40);
  assert(facts.every(({ depth, value }, index) => depth >= (facts[index - 1]?.depth ?? 0) && /^\d{5}$/.test(value)));
});

Deno.test("makeFacts() gives the same facts for the same seed", () => {
  assertEquals(makeFacts(new Random(7), 5), makeFacts(new Random(7), 5));
});

Deno.test("needleDocument() has the requested length and contains every fact", () => {
  const { ids, asked } = needleDocument(tokenizer, prose, 600, 3, new Random(1));
  const text = tokenizer.decode(ids);
  assertEquals(ids.length, 600);
  assert(asked.every(({ name, value }) => text.includes(`The code for the ${name} is ${value}.`)));
});

Deno.test("pairsDocument() holds more facts than are asked", () => {
  const { ids, asked } = pairsDocument(tokenizer, prose, 800, 4, new Random(1));
  assertEquals([ids.length, asked.length], [800, 4]);
  assertEquals(tokenizer.decode(ids).match(/The code for the/g)?.length, 20);
});

Deno.test("question() ends where the answer begins", () => {
  assert(question({ name: "iron garden", value: "", depth: 0 }).endsWith("The code for the iron garden is"));
});

Deno.test("proseIds() refuses a text that is too short, with both counts", () => {
  const error = assertThrows(() => proseIds(tokenizer, "short.txt", "Few words.", 50), PagesiftError, "--text");
  assertEquals(error.kind, "usage");
});
