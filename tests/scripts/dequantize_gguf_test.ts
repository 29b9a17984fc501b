/** Folders made of GGUF files: the checkpoint that the file was made of, with its config and its tokenizer. */
import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { openCheckpoint } from "../../engine/folder/checkpoint.ts";
import { type ModelConfig, readModelConfig } from "../../engine/folder/config.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { readTensor } from "../../engine/folder/tensor_data.ts";
import { roundedTo } from "../../engine/rounding.ts";
import { Tokenizer } from "../../engine/text/tokenizer.ts";
import { convertGguf } from "../../scripts/peers/convert_gguf.ts";
import { dequantizeGguf } from "../../scripts/train/dequantize_gguf.ts";
import { fixtureFolder } from "../support/fixture_model.ts";

/** Converts a fixture to GGUF and back. */
async function withFolder(fixture: string, use: (folder: string) => Promise<void>): Promise<void> {
  const temporary = await Deno.makeTempDir();
  try {
    const { path } = await convertGguf(fixtureFolder(fixture), join(temporary, "model.gguf"));
    await dequantizeGguf(path, join(temporary, "folder"));
    await use(join(temporary, "folder"));
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

/** Dtype, shape and numbers, rounded to bf16, of every tensor, by name. */
async function contentsOf(folder: string): Promise<Record<string, unknown>> {
  const { tensors } = await openCheckpoint(folder);
  const entries = await Promise.all([...tensors].map(async ([name, { file, shape }]) => {
    const numbers = Array.from(await readTensor(file, name), (value) => roundedTo("bf16", value));
    return [name, { shape, numbers }] as const;
  }));
  return Object.fromEntries(entries);
}

for (const fixture of ["llama-f32", "qwen3-sharded-bf16"]) {
  Deno.test(`the folder of a GGUF file of ${fixture} has the tensors of the checkpoint`, async () => {
    await withFolder(fixture, async (folder) => {
      assertEquals(await contentsOf(folder), await contentsOf(fixtureFolder(fixture)));
      const { tensors } = await openCheckpoint(folder);
      assertEquals(new Set([...tensors.values()].map(({ dtype }) => dtype)), new Set(["BF16"]));
    });
  });
}

Deno.test("the folder of a GGUF file has the config of the model", async () => {
  await withFolder("qwen3-sharded-bf16", async (folder) => {
    // GGUF has the epsilon in f32, and the end token of the tokenizer.
    const comparable = async (path: string): Promise<ModelConfig> => {
      const config = await readModelConfig(path);
      return { ...config, rmsNormEps: Math.fround(config.rmsNormEps), eosTokenIds: [] };
    };
    assertEquals(await comparable(folder), await comparable(fixtureFolder("qwen3-sharded-bf16")));
  });
});

Deno.test("the folder of a GGUF file encodes text as the model does", async () => {
  const text = "It was  a dark night,\n and 12345 said “yes”.";
  await withFolder("qwen3-sharded-bf16", async (folder) => {
    const expected = await Tokenizer.load(fixtureFolder("qwen3-sharded-bf16"));
    assertEquals((await Tokenizer.load(folder)).encode(text), expected.encode(text));
  });
});

Deno.test("an architecture whose folder would differ is refused", async () => {
  const error = await assertRejects(() => withFolder("qwen3-moe-f32", () => Promise.resolve()), PagesiftError);
  assertEquals(error.kind, "model");
});
