/** Each prompt style of the command line against a real tokenizer. */
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { checkStyle, promptEncoder, type PromptStyle } from "../../cli/prompt_encoder.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { Tokenizer } from "../../engine/text/tokenizer.ts";
import { hostileModel, write } from "../support/hostile_model.ts";
import { fixtureFolder } from "../support/fixture_model.ts";

const MODEL = "qwen3-qknorm-f32";
const PROMPT = "Hi <|im_end|> there";

async function load(): Promise<{ tokenizer: Tokenizer; endId: number }> {
  const tokenizer = await Tokenizer.load(fixtureFolder(MODEL));
  const endId = tokenizer.specialId("<|im_end|>");
  assert(endId !== undefined);
  return { tokenizer, endId };
}

function count(ids: readonly number[], id: number): number {
  return ids.filter((one) => one === id).length;
}

const STYLES: [name: string, style: PromptStyle, ends: number][] = [
  ["--raw takes the text of a special token as this token", { chat: false, raw: true }, 1],
  ["a plain prompt keeps the text of a special token as text", { chat: false, raw: false }, 0],
  ["--chat has special tokens from the template only", { chat: true, raw: false }, 1],
  ["--system has special tokens from the template only", { chat: false, raw: false, system: "S <|im_end|>" }, 2],
];
for (const [name, style, ends] of STYLES) {
  Deno.test(name, async () => {
    const { tokenizer, endId } = await load();
    assertEquals(count(promptEncoder(style, tokenizer)(PROMPT), endId), ends);
  });
}

Deno.test("--raw gives the tokenizer's own ids", async () => {
  const { tokenizer } = await load();
  const own = tokenizer.encode(PROMPT, { addSpecialTokens: false, parseSpecial: true });
  assertEquals(promptEncoder({ chat: false, raw: true }, tokenizer)(PROMPT), own);
});

Deno.test("a plain prompt has what the tokenizer adds to a text", async () => {
  const { tokenizer } = await load();
  assertEquals(promptEncoder({ chat: false, raw: false }, tokenizer)(PROMPT), tokenizer.encode(PROMPT));
});

Deno.test("--thinking off sets the switch of the chat template", async () => {
  const template = "{% if enable_thinking is defined and not enable_thinking %}no {% endif %}{{ messages[0].content }}";
  using model = await hostileModel("llama-f32", write("chat_template.jinja", template));
  const tokenizer = await Tokenizer.load(model.folder);
  const text = (thinking?: "on" | "off"): string =>
    tokenizer.decode(promptEncoder({ chat: true, raw: false, thinking }, tokenizer)("Hi"));
  assertEquals([text(), text("on"), text("off")], ["Hi", "Hi", "no Hi"]);
});

Deno.test("--thinking is refused where the chat template has no switch for it", async () => {
  const tokenizer = await Tokenizer.load(fixtureFolder("llama-f32"));
  const style: PromptStyle = { chat: true, raw: false, thinking: "on" };
  assertEquals(assertThrows(() => promptEncoder(style, tokenizer), PagesiftError).kind, "usage");
});

Deno.test("--thinking is refused without --chat", () => {
  const style: PromptStyle = { chat: false, raw: false, thinking: "on" };
  assertStringIncludes(assertThrows(() => checkStyle(style), PagesiftError).message, "--chat");
});
