/** SmolLM2-135M-Instruct in Q4_1: an instruct model as people have it. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { Engine } from "../../engine/engine.ts";
import { realModelPath } from "../../scripts/gate/real_models.ts";
import { agreementOf, ourPath } from "../../scripts/peers/check_llama_cpp.ts";
import { LlamaCpp } from "../../scripts/peers/llama_cpp/client.ts";
import { dequantizeGguf } from "../../scripts/train/dequantize_gguf.ts";
import { FIXED_TEXTS } from "../../scripts/studies/tokenizer_texts.ts";
import { runDeno } from "../support/process.ts";
import { distanceOf, expectedOf, realTest } from "./expected.ts";

const MAIN = fromFileUrl(new URL("../../cli/main.ts", import.meta.url));
const BOOK = fromFileUrl(new URL("../../examples/war_of_the_worlds.txt", import.meta.url));
const ADAPTER = fromFileUrl(new URL("../../models/smollm2-sparse", import.meta.url));
const PLACE = ["-m", realModelPath("smollm2"), "--device", "cpu", "-t", "2", "--no-stdin"];
const EXPECTED = expectedOf("smollm2");

function load(): Promise<Engine> {
  return Engine.load(realModelPath("smollm2"), { device: "cpu", threads: 2 });
}

realTest("smollm2", "SmolLM2 in GGUF has the ids of llama.cpp", async () => {
  await using engine = await load();
  await using peer = await LlamaCpp.start(realModelPath("smollm2"));
  for (const text of [...FIXED_TEXTS, (await Deno.readTextFile(BOOK)).slice(0, 20_000)]) {
    if (text === "") continue;
    assertEquals(engine.tokenizer.encode(text, { addSpecialTokens: false }), await peer.tokenize(text), text);
  }
});

realTest("smollm2", "SmolLM2 in GGUF has the logits of transformers", async () => {
  await using engine = await load();
  const { typical, spread, margin } = await distanceOf(engine, EXPECTED);
  assert(typical < 0.05 * spread && margin < 0.3, `typical ${typical} of a spread of ${spread}, margin ${margin}`);
});

realTest("smollm2", "SmolLM2 in GGUF chooses the tokens of llama.cpp", async () => {
  await using engine = await load();
  await using peer = await LlamaCpp.start(realModelPath("smollm2"));
  const prompt = EXPECTED.prompt_ids;
  const path = await ourPath(engine, prompt, 24);
  const kv = { kv: "F16", flash: true } as const;
  await peer.open("a", { contextTokens: 200, batchTokens: 512, threads: 2, ...kv });
  const { sameChoices, margin, typical } = await agreementOf(peer, "a", prompt, path);
  assert(sameChoices >= 22 && margin < 0.3, `${sameChoices} of 24 choices, margin ${margin}`);
  assert(typical < 0.3, `logits differ by ${typical}`);
});

realTest("smollm2", "SmolLM2 answers a question in its chat template", async () => {
  const args = ["generate", ...PLACE, "--chat", "--temp", "0", "-n", "40", "What is the capital of France?"];
  const { code, stdout, stderr } = await runDeno(["run", "-A", MAIN, ...args]);
  assertEquals(code, 0, stderr);
  assertStringIncludes(stdout, "Paris");
});

realTest(
  "smollm2",
  "SmolLM2 with the adapter for sparse reading answers about a book from 256 tokens per step",
  async () => {
    const text = (await Deno.readTextFile(BOOK)).slice(0, 12_000);
    const args = [
      "generate",
      ...PLACE,
      "--adapter",
      ADAPTER,
      "--chat",
      "--temp",
      "0",
      "-n",
      "40",
      "--sparse",
      "on",
      "-v",
    ];
    const question = "Which planet do the creatures in this text come from? Answer in one sentence.";
    const { code, stdout, stderr } = await runDeno(["run", "-A", MAIN, ...args, "-p", text, question]);
    assertEquals(code, 0, stderr);
    assertStringIncludes(stderr, "budget 256");
    assertStringIncludes(stdout, "Mar");
  },
);

realTest("smollm2", "the pages that an answer of SmolLM2 reads can be inspected", async () => {
  const text = (await Deno.readTextFile(BOOK)).slice(0, 8000);
  const args = ["inspect-pages", ...PLACE, "--sparse-budget", "256", "-n", "6", "--json", "-p", text];
  const { code, stdout, stderr } = await runDeno(["run", "-A", MAIN, ...args]);
  assertEquals(code, 0, stderr);
  const report = JSON.parse(stdout);
  assertEquals(report.layers?.length ?? report.facts?.layers?.length, 30, stdout.slice(0, 500));
});

realTest("smollm2", "SmolLM2 as a folder of bf16 weights has the logits of transformers", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await dequantizeGguf(realModelPath("smollm2"), folder);
    await using engine = await Engine.load(folder, { device: "cpu", threads: 2 });
    const { typical, spread, margin } = await distanceOf(engine, EXPECTED);
    assert(typical < 0.05 * spread && margin < 0.3, `typical ${typical} of a spread of ${spread}, margin ${margin}`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
