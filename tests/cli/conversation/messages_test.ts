import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import {
  type Message,
  parseLines,
  splitLastTurn,
  toLines,
  withoutOldestTurn,
  withSystem,
} from "../../../cli/conversation/messages.ts";
import { PagesiftError } from "../../../engine/errors.ts";

const system: Message = { role: "system", content: "Be brief." };
const [q1, a1, q2, a2] = ["one", "first", "two", "second"].map((content, index): Message => ({
  role: index % 2 === 0 ? "user" : "assistant",
  content,
})) as [Message, Message, Message, Message];

Deno.test("withoutOldestTurn drops the first question with its answer and keeps the system message", () => {
  assertEquals(withoutOldestTurn([system, q1, a1, q2, a2]), [system, q2, a2]);
});

Deno.test("withoutOldestTurn leaves the system message of a conversation with one turn", () => {
  assertEquals(withoutOldestTurn([system, q1, a1]), [system]);
});

Deno.test("splitLastTurn finds the last question", () => {
  assertEquals(splitLastTurn([system, q1, a1, q2, a2]), { before: [system, q1, a1], question: q2 });
});

Deno.test("withSystem replaces the system message", () => {
  assertEquals(withSystem([system, q1, a1], "Be long."), [{ role: "system", content: "Be long." }, q1, a1]);
});

Deno.test("withSystem removes the system message where the new one is empty", () => {
  assertEquals(withSystem([system, q1], ""), [q1]);
});

Deno.test("parseLines reads what toLines wrote", () => {
  const messages = [system, { ...q1, content: 'two\nlines and "quotes"' }, a1];
  assertEquals(parseLines(toLines(messages), "a.jsonl"), messages);
});

Deno.test("toLines writes no parts", () => {
  assertEquals(toLines([{ ...q1, parts: [{ name: "a.txt", start: 0, end: 3 }] }]), '{"role":"user","content":"one"}\n');
});

for (
  const [name, line] of [
    ["text that is not JSON", "hello"],
    ["a message without a role", '{"content": "a"}'],
    ["content that is not text", '{"role": "user", "content": ["a"]}'],
    ["null", "null"],
  ] as const
) {
  Deno.test(`parseLines refuses ${name} and names its line`, () => {
    const error = assertThrows(() => parseLines(`${toLines([q1])}\n${line}\n`, "a.jsonl"), PagesiftError);
    assertEquals(error.kind, "usage");
    assertStringIncludes(error.message, "a.jsonl:3: ");
  });
}
