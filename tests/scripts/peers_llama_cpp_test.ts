/**
 * llama.cpp computes the same logits from a converted fixture as we do. Ignored, and counted so, where scripts/peers/measure_llama_cpp.ts has
 * not installed it.
 */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { agreementOf, ourPath } from "../../scripts/peers/check_llama_cpp.ts";
import { convertGguf } from "../../scripts/peers/convert_gguf.ts";
import { LlamaCpp } from "../../scripts/peers/llama_cpp/client.ts";
import { isInstalled, platformName } from "../../scripts/peers/llama_cpp/install.ts";
import { DEVICE_KIND } from "../support/device.ts";
import { fixtureFolder, loadFixture, promptIds } from "../support/fixture_model.ts";

const STEPS = 6;
/** 16-bit weights: llama.cpp rounds what they are multiplied by to 16 bits too, and ours keeps 16-bit keys and values. */
const TOLERANCES: Readonly<Record<string, number>> = { f32: 5e-5, f16: 2e-2, bf16: 8e-2 };
const ignore = DEVICE_KIND !== "cpu" || !await isInstalled("cpu");

/** A fixture in llama.cpp, as long as `use` runs. */
async function withLlamaCpp(fixture: string, use: (peer: LlamaCpp) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const { path } = await convertGguf(fixtureFolder(fixture), join(folder, "model.gguf"));
    await using peer = await LlamaCpp.start(path);
    await use(peer);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

for (
  const fixture of [
    ...["qwen3-qknorm-f32", "qwen3-sharded-bf16", "qwen2-bias-f32", "qwen2-yarn-bf16", "mistral-f32", "llama-f32"],
    ...["llama-linear-rope-f16", "llama3-rope-bf16", "granite-f32", "smollm3-f32", "qwen3-moe-f32"],
  ]
) {
  Deno.test({ name: `llama.cpp gives our logits of ${fixture}`, ignore }, async () => {
    await using engine = await loadFixture(fixture);
    const prompt = promptIds(fixture, 100);
    const path = await ourPath(engine, prompt, STEPS);
    await withLlamaCpp(fixture, async (peer) => {
      await peer.open("a", { contextTokens: 128, batchTokens: 64, threads: 2, flash: false, kv: "F32" });
      const { largest } = await agreementOf(peer, "a", prompt, path);
      assertAlmostEquals(largest, 0, TOLERANCES[engine.kvType] ?? 0);
    });
  });
}

Deno.test({ name: "llama.cpp tokenizes text as we do with a converted tokenizer", ignore }, async () => {
  await using engine = await loadFixture("qwen3-qknorm-f32");
  const text = "It's 1895: the Martians' cylinder fell, 42 miles away.\n\n  Nobody knew!";
  await withLlamaCpp("qwen3-qknorm-f32", async (peer) => {
    assertEquals(await peer.tokenize(text), engine.tokenizer.encode(text));
  });
});

Deno.test("there is no llama.cpp for a machine without a prebuilt library", () => {
  assertEquals(platformName("cuda", "linux", "aarch64"), undefined);
});
