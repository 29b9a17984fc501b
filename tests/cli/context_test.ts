import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { type Cut, fitPrompt, type FittedPrompt } from "../../cli/context.ts";
import { promptEncoder, type PromptStyle } from "../../cli/prompt_encoder.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { fakeTokenizer } from "./fake_engine.ts";
import { runGenerate } from "./fake_world.ts";

const text = "0123456789".repeat(10);

function fit(limit: number, maxTokens: number, truncate?: Cut, style: Partial<PromptStyle> = {}): FittedPrompt {
  const encode = promptEncoder({ chat: false, raw: false, ...style }, fakeTokenizer);
  return fitPrompt(text, "Prompt", { limit, maxTokens, truncate }, encode, fakeTokenizer);
}

function textOf({ ids }: FittedPrompt): string {
  return fakeTokenizer.decode(ids);
}

Deno.test("fitPrompt() leaves a prompt that fits as it is", () => {
  const fitted = fit(200, 50);
  assertEquals([textOf(fitted), fitted.warning], [`<s>${text}`, undefined]);
});

Deno.test("fitPrompt() takes a prompt as long as the context", () => assertEquals(fit(101, 1).ids.length, 101));

Deno.test("fitPrompt() refuses a longer prompt with the counts", () => {
  const error = assertThrows(() => fit(95, 5), PagesiftError);
  const counts = "101 tokens, limit 95, over by 6";
  assertEquals(error.kind, "context");
  assertEquals(error.message, `Prompt is longer than the context: ${counts}; --truncate head|middle|tail cuts it`);
});

Deno.test("fitPrompt() warns when the new tokens do not fit", () => {
  const { warning } = fit(110, 20);
  assertMatch(warning ?? "", /101 tokens.* 10 of the 20 tokens.* 110/);
});

Deno.test("fitPrompt() does not warn when the last new token is the one past the context", () => {
  assertEquals(fit(110, 10).warning, undefined);
});

Deno.test("fitPrompt() drops the beginning for head, and keeps the special token in front", () => {
  assertEquals(textOf(fit(30, 10, "head")), "<s>" + text.slice(-19));
});

Deno.test("fitPrompt() drops the end for tail", () =>
  assertEquals(textOf(fit(30, 10, "tail")), "<s>" + text.slice(0, 19)));

Deno.test("fitPrompt() drops the middle for middle", () => {
  assertEquals(textOf(fit(30, 10, "middle")), "<s>" + text.slice(0, 10) + text.slice(-9));
});

Deno.test("fitPrompt() leaves room for the new tokens up to half the context", () => {
  assertEquals(fit(30, 1000, "tail").ids.length, 15);
});

Deno.test("fitPrompt() tells how much it dropped", () => {
  assertEquals(fit(30, 10, "head").warning, "Prompt truncated: dropped 81 of 101 tokens from its head");
});

Deno.test("fitPrompt() keeps the chat template whole", () => {
  assertEquals(textOf(fit(40, 10, "tail", { chat: true })), `<user>${text.slice(0, 13)}<assistant>`);
});

Deno.test("fitPrompt() fails when the template alone is too long", () => {
  assertThrows(
    () => fit(10, 1, "tail", { chat: true }),
    PagesiftError,
    "Prompt, even truncated, is longer than the context",
  );
});

Deno.test("fitPrompt() cuts further when tokens join differently at the seam", () => {
  const tokenizer = { ...fakeTokenizer, decode: (ids: readonly number[]) => fakeTokenizer.decode(ids) + "++" };
  const encode = promptEncoder({ chat: false, raw: true }, tokenizer);
  const { ids } = fitPrompt(text, "Prompt", { limit: 30, maxTokens: 10, truncate: "tail" }, encode, tokenizer);
  assertEquals(fakeTokenizer.decode(ids), text.slice(0, 18) + "++");
});

Deno.test("fitPrompt() drops half characters at the seam", () => {
  const tokenizer = { ...fakeTokenizer, decode: (ids: readonly number[]) => fakeTokenizer.decode(ids) + "\uFFFD" };
  const encode = promptEncoder({ chat: false, raw: true }, tokenizer);
  const { ids } = fitPrompt(text, "Prompt", { limit: 30, maxTokens: 10, truncate: "tail" }, encode, tokenizer);
  assertEquals(fakeTokenizer.decode(ids), text.slice(0, 20));
});

Deno.test("generate ends with 4 when the prompt is longer than the context", async () => {
  const { ending, stdout } = await runGenerate(["x".repeat(1000)]);
  assertEquals([ending, stdout], [{ code: 4 }, ""]);
});

Deno.test("generate takes --ctx-size as the context when it is less than the model's", async () => {
  assertEquals((await runGenerate(["x".repeat(100), "-c", "64"])).ending, { code: 4 });
});

Deno.test("generate --truncate runs and tells on stderr", async () => {
  const { ending, stderr } = await runGenerate(["x".repeat(1099), "--truncate", "middle", "-n", "100"]);
  assertEquals(ending, { code: 0 });
  assertEquals(stderr, "Warning: Prompt truncated: dropped 200 of 1,100 tokens from its middle\n");
});
