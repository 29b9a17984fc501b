/** Gemma 3 270M in Q4_K_M, whose rows of q, k and v have different formats. */
import { assert, assertEquals } from "@std/assert";
import { Engine } from "../../engine/engine.ts";
import { realModelPath } from "../../scripts/gate/real_models.ts";
import { agreementOf, ourPath } from "../../scripts/peers/check_llama_cpp.ts";
import { LlamaCpp } from "../../scripts/peers/llama_cpp/client.ts";
import { distanceOf, expectedOf, realTest } from "./expected.ts";

const EXPECTED = expectedOf("gemma3");

function load(): Promise<Engine> {
  return Engine.load(realModelPath("gemma3"), { device: "cpu", threads: 2, maxContext: 4096 });
}

realTest("gemma3", "Gemma 3 in GGUF has the ids of its tokenizer.json", async () => {
  await using engine = await load();
  for (const { text, ids } of EXPECTED.tokenizer ?? []) {
    assertEquals(engine.tokenizer.encode(text, { addSpecialTokens: false }), ids, text);
  }
});

realTest("gemma3", "Gemma 3 in GGUF has the logits of transformers", async () => {
  await using engine = await load();
  const { typical, spread, margin } = await distanceOf(engine, EXPECTED);
  assert(typical < 0.05 * spread && margin < 0.3, `typical ${typical} of a spread of ${spread}, margin ${margin}`);
});

realTest("gemma3", "Gemma 3 in GGUF chooses the tokens of llama.cpp", async () => {
  await using engine = await load();
  await using peer = await LlamaCpp.start(realModelPath("gemma3"));
  const path = await ourPath(engine, EXPECTED.prompt_ids, 24);
  const kv = { kv: "F16", flash: true } as const;
  await peer.open("a", { contextTokens: 200, batchTokens: 512, threads: 2, ...kv });
  const { sameChoices, margin } = await agreementOf(peer, "a", EXPECTED.prompt_ids, path);
  assert(sameChoices >= 22 && margin < 0.3, `${sameChoices} of 24 choices, margin ${margin}`);
});
