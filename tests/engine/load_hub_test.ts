/** Models that are loaded by a hub name. */
import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { Engine } from "../../engine/engine.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { convertGguf } from "../../scripts/peers/convert_gguf.ts";
import { FakeHub } from "../support/fake_hub.ts";
import { fixtureFolder, loadFolder } from "../support/fixture_model.ts";
import { withFiles } from "../support/folders.ts";

Deno.test("Engine.load downloads the GGUF file of a hub name with a format", async () => {
  await withFiles({}, async (cache) => {
    const { path } = await convertGguf(fixtureFolder("qwen3-qknorm-f32"), join(cache, "m-F32.gguf"));
    await using hub = new FakeHub({ "m-F32.gguf": await Deno.readFile(path) });
    const env = { HF_HUB_CACHE: cache, HF_ENDPOINT: hub.endpoint };
    await using engine = await loadFolder("org/name:F32", { hub: { env } });
    assertEquals(engine.config.architecture, "Qwen3ForCausalLM");
  });
});

Deno.test("Engine.load downloads nothing where the hub's options say so", async () => {
  await withFiles({}, async (cache) => {
    const hub = { env: { HF_HUB_CACHE: cache }, offline: true };
    const { kind } = await assertRejects(() => Engine.load("org/name", { hub }), PagesiftError);
    assertEquals(kind, "network");
  });
});

Deno.test("Engine.load says that there is no such path and no such name", async () => {
  const { kind } = await assertRejects(() => Engine.load("/nowhere/model"), PagesiftError);
  assertEquals(kind, "model");
});
