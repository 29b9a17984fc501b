/** A real model with a token whose embedding is NaN, through the command line. */
import { assertEquals, assertMatch } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { ModelCopy } from "../support/fixture_model.ts";
import { runDeno } from "../support/process.ts";

const MAIN = fromFileUrl(new URL("../../cli/main.ts", import.meta.url));
const MODEL = "llama-f32";

Deno.test("generate --jsonl answers the other lines when the logits of one are NaN, and ends with 8", async () => {
  using copy = ModelCopy.of(MODEL);
  const { tokens, hidden } = {
    tokens: 3,
    hidden: JSON.parse(Deno.readTextFileSync(`${copy.folder}/config.json`)).hidden_size,
  };
  const lines = `${copy.folder}/lines.jsonl`;
  const words = ["One two", "Zebra", "Three"];
  Deno.writeTextFileSync(
    lines,
    words.map((prompt, id) => JSON.stringify({ id, prompt, max_tokens: tokens })).join("\n"),
  );
  const args = ["run", "-A", MAIN, "generate", "--device", "cpu", "-t", "2", "-m", copy.folder, "--raw"];
  const good = await runDeno([...args, "--jsonl", lines]);
  const answers = good.stdout.trim().split("\n").map((line) => JSON.parse(line));
  assertEquals(good.code, 0);
  // The first token of the second prompt, found by encoding it alone.
  const { Tokenizer } = await import("../../engine/text/tokenizer.ts");
  const tokenizer = await Tokenizer.load(copy.folder);
  const others = new Set([0, 2].flatMap((index) => [...tokenizer.encode(words[index]!), ...answers[index].ids]));
  const poison = tokenizer.encode(words[1]!).find((id) => !others.has(id))!;
  await copy.poke("model.embed_tokens.weight", hidden * poison, NaN);
  const { code, stdout, stderr } = await runDeno([...args, "--jsonl", lines]);
  const found = stdout.trim().split("\n").map((line) => JSON.parse(line));
  assertEquals([found[0], found[2]], [answers[0], answers[2]]);
  assertEquals([found[1].id, found[1].finish, code], [1, "numeric", 8]);
  assertMatch(stderr, /lines\.jsonl:2: The model gave logits that are not finite.*\nError: 1 of 3 prompts [^\n]*\n$/);
});
