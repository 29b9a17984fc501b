import { assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { PagesiftError } from "../../../engine/errors.ts";
import { bfloat16ToFloat32, decodeTensor, readTensor } from "../../../engine/folder/tensor_data.ts";
import { withFiles } from "../../support/folders.ts";
import { fileOf } from "../../support/safetensors_bytes.ts";

const REFERENCE = fromFileUrl(new URL("../../fixtures/hf/llama-f32/reference.safetensors", import.meta.url));

Deno.test("readTensor reads F32 as float32", async () => {
  const logits = await readTensor(REFERENCE, "logits");
  assertInstanceOf(logits, Float32Array);
  assertEquals(logits.length, 16 * 700);
});

Deno.test("readTensor reads I32 as integers", async () => {
  const reference = JSON.parse(await Deno.readTextFile(REFERENCE.replace(/safetensors$/, "json")));
  assertEquals([...await readTensor(REFERENCE, "input_ids")], reference.input_ids);
});

for (const folder of ["llama-linear-rope-f16", "qwen2-yarn-bf16"]) {
  Deno.test(`readTensor reads finite weights of ${folder}`, async () => {
    const file = join(REFERENCE, "..", "..", folder, "model.safetensors");
    const values = await readTensor(file, "model.layers.0.mlp.up_proj.weight") as Float32Array;
    assertEquals([values.length, values.every((value) => Math.abs(value) < 2)], [160 * 64, true]);
  });
}

Deno.test("readTensor says which tensor is missing", async () => {
  await assertRejects(() => readTensor(REFERENCE, "nothing"), PagesiftError, 'No tensor "nothing"');
});

Deno.test("readTensor refuses other dtypes", async () => {
  await withFiles({ w: fileOf("a") }, async (folder) => {
    await assertRejects(() => readTensor(join(folder, "w"), "a"), PagesiftError, "dtype U8");
  });
});

Deno.test("decodeTensor reads F16 with its smallest and largest values", () => {
  const bytes = new Uint8Array(Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x7bff).buffer);
  assertEquals(decodeTensor("F16", bytes), Float32Array.of(1, -2, 2 ** -24, 65_504));
});

Deno.test("bfloat16ToFloat32 keeps sign, exponent and infinity", () => {
  const halves = Uint16Array.of(0x3f80, 0xc000, 0x0080, 0x7f80);
  assertEquals([...bfloat16ToFloat32(halves)], [1, -2, 2 ** -126, Infinity]);
});
