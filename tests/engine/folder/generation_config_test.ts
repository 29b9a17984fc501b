import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
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
    assertEquals((await readGenerationConfig(folder)).eosTokenIds, [2]);
  });
});

for (
  const [name, fields, sampling] of [
    ["no do_sample", '"temperature": 0.6, "top_k": 20', {}],
    ["a do_sample of false", '"do_sample": false, "temperature": 0.6', {}],
    ["a do_sample that is no flag", '"do_sample": 1, "min_p": null', {}],
    ["do_sample alone", '"do_sample": true', { temperature: 1 }],
    [
      "every field",
      '"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.05',
      { temperature: 0.6, topK: 20, topP: 0.95, minP: 0.05, repeatPenalty: 1.05 },
    ],
    ["null for a field", '"do_sample": true, "top_p": null', { temperature: 1 }],
    ["-1 for all tokens", '"do_sample": true, "top_k": -1', { temperature: 1 }],
  ] as const
) {
  Deno.test(`readGenerationConfig reads how to sample from a file with ${name}`, async () => {
    await withFiles({ "generation_config.json": `{"eos_token_id": 5, ${fields}}` }, async (folder) => {
      assertEquals(await readGenerationConfig(folder), { eosTokenIds: [5], sampling, notices: [] });
    });
  });
}

for (
  const [field, value] of [
    ["top_k", "-2"],
    ["top_k", "2.5"],
    ["top_p", "2"],
    ["top_p", "0"],
    ["temperature", '"warm"'],
    ["temperature", "-1"],
    ["min_p", "1.5"],
    ["repetition_penalty", "Infinity"],
  ] as const
) {
  Deno.test(`readGenerationConfig ignores a ${field} of ${value}, with a warning`, async () => {
    const text = `{"eos_token_id": 5, "do_sample": true, "${field}": ${value}}`;
    await withFiles({ "generation_config.json": text }, async (folder) => {
      const { sampling, notices } = await readGenerationConfig(folder);
      assertEquals([sampling, notices.map(({ level }) => level)], [{ temperature: 1 }, ["warning"]]);
      assertStringIncludes(notices[0]?.text ?? "", `"${field}"`);
    });
  });
}

Deno.test("readGenerationConfig accepts any value in a field that is not used", async () => {
  const text = '{"eos_token_id": 5, "bos_token_id": "x", "pad_token_id": [-1], "decoder_start_token_id": 2.5}';
  await withFiles({ "generation_config.json": text }, async (folder) => {
    assertEquals(await readGenerationConfig(folder), { eosTokenIds: [5], sampling: {}, notices: [] });
  });
});

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
