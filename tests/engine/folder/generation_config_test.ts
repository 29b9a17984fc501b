import { assertEquals, assertRejects } from "@std/assert";
import { readGenerationConfig } from "../../../engine/folder/config.ts";
import { PagesiftError } from "../../../engine/errors.ts";
import { withFiles } from "../../support/folders.ts";

Deno.test("readGenerationConfig prefers its own end tokens", async () => {
  const files = { "generation_config.json": '{"eos_token_id": [5, 6]}', "config.json": '{"eos_token_id": 2}' };
  await withFiles(files, async (folder) => {
    assertEquals((await readGenerationConfig(folder)).eosTokenIds, [5, 6]);
  });
});

Deno.test("readGenerationConfig falls back to config.json", async () => {
  const files = {
    "generation_config.json": '{"eos_token_id": null}',
    "config.json": '{"eos_token_id": 2, "bos_token_id": 1}',
  };
  await withFiles(files, async (folder) => {
    assertEquals(await readGenerationConfig(folder), { eosTokenIds: [2], bosTokenId: 1 });
  });
});

Deno.test("readGenerationConfig takes sampling values only where the authors sample", async () => {
  const values = '"temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.1}';
  await withFiles({ "generation_config.json": `{"do_sample": true, ${values}` }, async (folder) => {
    const sampling = { temperature: 0.6, topK: 20, topP: 0.95, repeatPenalty: 1.1 };
    assertEquals(await readGenerationConfig(folder), { eosTokenIds: [], ...sampling });
  });
  await withFiles({ "generation_config.json": `{"do_sample": false, ${values}` }, async (folder) => {
    assertEquals(await readGenerationConfig(folder), { eosTokenIds: [] });
  });
});

Deno.test("readGenerationConfig names a wrong field", async () => {
  await withFiles({ "generation_config.json": '{"do_sample": true, "top_p": 2}' }, async (folder) => {
    await assertRejects(() => readGenerationConfig(folder), PagesiftError, 'generation_config.json" must be a number');
  });
});
