import { assertEquals } from "@std/assert";
import { sourceSpans } from "../../../cli/conversation/pages.ts";
import type { Message } from "../../../cli/conversation/messages.ts";

const CONVERSATION: Message[] = [
  { role: "system", content: "Be kind." },
  {
    role: "user",
    content: "Text\n\nyes",
    parts: [{ name: "a.txt", start: 0, end: 6 }, { name: "<prompt>", start: 6, end: 9 }],
  },
  { role: "assistant", content: "yes" },
  { role: "user", content: "yes" },
];
const TEXT = CONVERSATION.map(({ content }) => `[${content}]`).join("");

Deno.test("sourceSpans finds each message after the one before it, and the files in it", () => {
  const found = sourceSpans(TEXT, CONVERSATION).map((
    { source, start, end },
  ) => [source, TEXT.slice(start, end), start]);
  assertEquals(found, [
    ["<system>", "Be kind.", 1],
    ["a.txt", "Text\n\n", 11],
    ["<question 1>", "yes", 17],
    ["<answer 1>", "yes", 22],
    ["<question 2>", "yes", 27],
  ]);
});

Deno.test("sourceSpans goes on after a message that the template left out", () => {
  const found = sourceSpans("[Text\n\nyes][yes]", CONVERSATION.slice(0, 3)).map(({ source }) => source);
  assertEquals(found, ["a.txt", "<question 1>", "<answer 1>"]);
});
