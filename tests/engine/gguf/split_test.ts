/** Models in several GGUF files. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { basename, join } from "@std/path";
import { PagesiftError } from "../../../engine/errors.ts";
import { readGgufModel } from "../../../engine/gguf/split.ts";
import { withFiles } from "../../support/folders.ts";
import { ggufBytes, type TestValue } from "../../support/gguf_bytes.ts";

type Split = Record<string, TestValue>;

function nameOf(part: number, count = 3): string {
  return `m-0000${part + 1}-of-0000${count}.gguf`;
}

/** Three parts with the tensors a, b, c; `change` alters what a part says of the split, `tensor` what it contains. */
function parts(change: Record<number, Split> = {}, tensor: Record<number, string> = {}): Record<string, Uint8Array> {
  return Object.fromEntries(["a", "b", "c"].map((name, part) => {
    const split = { no: { u32: part }, count: { u32: 3 }, "tensors.count": { i32: 3 }, ...change[part] };
    const fields = Object.entries(split).map(([key, value]): [string, TestValue] => [`split.${key}`, value]);
    return [nameOf(part), ggufBytes({ fields, tensors: [{ name: tensor[part] ?? name, sizes: [4] }] })];
  }));
}

Deno.test("readGgufModel reads the tensors of all parts, each from its file", async () => {
  await withFiles(parts(), async (folder) => {
    const { tensors, files } = await readGgufModel(join(folder, nameOf(0)));
    assertEquals([...tensors.values()].map(({ name, file }) => [name, basename(file)]), [
      ["a", nameOf(0)],
      ["b", nameOf(1)],
      ["c", nameOf(2)],
    ]);
    assertEquals(files.length, 3);
  });
});

for (
  const [name, files, first, ...words] of [
    ["a part that is not the first", parts(), nameOf(1), "first part", nameOf(0)],
    ["a first part of another name", { "m.gguf": parts()[nameOf(0)]! }, "m.gguf", "rename"],
    ["a missing part", { [nameOf(0)]: parts()[nameOf(0)]! }, nameOf(0), nameOf(1), "part 2 of 3"],
    ["a part of another split", parts({ 1: { no: { u32: 2 } } }), nameOf(0), nameOf(1)],
    ["a tensor in two parts", parts({}, { 2: "b" }), nameOf(0), '"b"', "two parts"],
    ["another number of tensors", parts({ 0: { "tensors.count": { i32: 4 } } }), nameOf(0), "expected 4"],
    ["a part number beyond the count", parts({ 0: { no: { u32: 3 } } }), nameOf(0), "split.no"],
  ] as [string, Record<string, Uint8Array>, string, ...string[]][]
) {
  Deno.test(`readGgufModel refuses ${name}`, async () => {
    await withFiles(files, async (folder) => {
      const error = await assertRejects(() => readGgufModel(join(folder, first)), PagesiftError);
      assertEquals(error.kind, "model");
      for (const word of words) assertStringIncludes(error.message, word);
    });
  });
}

Deno.test("readGgufModel refuses a part that is a link out of the folder", async () => {
  await withFiles(parts(), async (elsewhere) => {
    await withFiles({ [nameOf(0)]: parts()[nameOf(0)]! }, async (folder) => {
      for (const part of [1, 2]) await Deno.symlink(join(elsewhere, nameOf(part)), join(folder, nameOf(part)));
      await assertRejects(() => readGgufModel(join(folder, nameOf(0))), PagesiftError, "link");
    });
  });
});
