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
    assertEquals(await readGenerationConfig(folder), { eosTokenIds: [2] });
  });
});

for (
  const [name, fields] of [
    ["a top_k of -1", '"do_sample": true, "top_k": -1'],
    ["a top_p over 1 and a temperature of a string", '"do_sample": true, "top_p": 2, "temperature": "warm"'],
    ["a do_sample that is no flag", '"do_sample": 1, "min_p": null'],
    ["a repetition_penalty of infinity", '"do_sample": true, "repetition_penalty": Infinity'],
    ["other token ids of any kind", '"bos_token_id": "x", "pad_token_id": [-1], "decoder_start_token_id": 2.5'],
  ]
) {
  Deno.test(`readGenerationConfig reads the end tokens beside ${name}`, async () => {
    await withFiles({ "generation_config.json": `{"eos_token_id": 5, ${fields}}` }, async (folder) => {
      assertEquals(await readGenerationConfig(folder), { eosTokenIds: [5] });
    });
  });
}

for (const id of ['"x"', "1.5", "[1, null]", "true", "Infinity", "4294967296"]) {
  Deno.test(`readGenerationConfig refuses ${id} for an end token`, async () => {
    await withFiles({ "generation_config.json": `{"eos_token_id": ${id}}` }, async (folder) => {
      await assertRejects(
        () => readGenerationConfig(folder),
        PagesiftError,
        "must be a token id or a list of token ids",
      );
    });
  });
}

Deno.test("readGenerationConfig takes an end token of -1 for none", async () => {
  await withFiles({ "generation_config.json": '{"eos_token_id": [-1, 6]}' }, async (folder) => {
    assertEquals((await readGenerationConfig(folder)).eosTokenIds, [6]);
  });
});
