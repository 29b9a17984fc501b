import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { PagesiftError } from "../../../engine/errors.ts";
import { type GgufHeader, readGgufHeader } from "../../../engine/gguf/header.ts";
import { withFiles } from "../../support/folders.ts";
import { ByteWriter, ggufBytes, type TestGguf, type TestTensor } from "../../support/gguf_bytes.ts";

const TENSOR: TestTensor = { name: "a", sizes: [4, 2] };
const OTHER: TestTensor = { name: "b", sizes: [4] };
const KEY = "general.name";

async function read(bytes: Uint8Array): Promise<GgufHeader> {
  let header: GgufHeader | undefined;
  await withFiles({ "m.gguf": bytes }, async (folder) => {
    header = await readGgufHeader(join(folder, "m.gguf"));
  });
  return header!;
}

async function assertRefused(bytes: Uint8Array, ...parts: string[]): Promise<void> {
  await withFiles({ "m.gguf": bytes }, async (folder) => {
    const error = await assertRejects(() => readGgufHeader(join(folder, "m.gguf")), PagesiftError);
    assertEquals(error.kind, "model");
    for (const part of ["m.gguf", ...parts]) assertStringIncludes(error.message, part);
    assert(!error.message.includes("\n") && !error.message.endsWith("."), error.message);
  });
}

Deno.test("readGgufHeader gives format, shape outermost first and place of every tensor", async () => {
  const bytes = ggufBytes({ tensors: [TENSOR, { name: "q", sizes: [64, 3], type: 3, data: new Uint8Array(120) }] });
  const { tensors } = await read(bytes);
  assertEquals([...tensors.values()].map(({ name, dtype, shape, bytes }) => ({ name, dtype, shape, bytes })), [
    { name: "a", dtype: "F32", shape: [2, 4], bytes: 32 },
    { name: "q", dtype: "Q4_1", shape: [3, 64], bytes: 120 },
  ]);
  assertEquals(tensors.get("q")!.offsetBytes, bytes.length - 120);
});

for (const version of [2, 3]) {
  Deno.test(`readGgufHeader reads version ${version}`, async () => {
    assertEquals((await read(ggufBytes({ version, tensors: [TENSOR] }))).tensors.size, 1);
  });
}

Deno.test("readGgufHeader reads values of every kind", async () => {
  const { metadata } = await read(ggufBytes({
    fields: [
      ["a", { u32: 7 }],
      ["b", { i32: -7 }],
      ["c", { f32: 0.5 }],
      ["d", { bool: 1 }],
      ["e", { text: "ä▁" }],
      ["f", { texts: ["x", ""] }],
      ["g", { i32s: [-1, 2] }],
      ["h", { u64: 2n ** 40n }],
      ["i", { u64: 2n ** 63n }],
    ],
  }));
  assertEquals([...metadata.values()], [7, -7, 0.5, true, "ä▁", ["x", ""], [-1, 2], 2 ** 40, 2n ** 63n]);
});

Deno.test("readGgufHeader reads a text that is longer than its window", async () => {
  const text = "0123456789".repeat(250_000);
  const { metadata } = await read(ggufBytes({ fields: [[KEY, { text }], ["x", { u32: 5 }]] }));
  assertEquals([metadata.get(KEY) === text, metadata.get("x")], [true, 5]);
});

Deno.test("readGgufHeader takes the alignment that the file names", async () => {
  const bytes = ggufBytes({
    alignment: 64,
    fields: [["general.alignment", { u32: 64 }]],
    tensors: [TENSOR, OTHER],
  });
  const { tensors } = await read(bytes);
  assertEquals(tensors.get("b")!.offsetBytes - tensors.get("a")!.offsetBytes, 64);
});

Deno.test("readGgufHeader takes padding behind the last tensor", async () => {
  const tensors = [{ name: "a", sizes: [3] }];
  assertEquals((await read(ggufBytes({ tensors, tail: new Uint8Array(20) }))).tensors.size, 1);
});

const nested = (depth: number): Uint8Array => {
  const out = new ByteWriter();
  for (let level = 0; level < depth; level++) out.u32(9).u64(1);
  return out.u32(4).u64(1).u32(0).bytes();
};
const longText = new ByteWriter().u64(2n ** 50n).bytes();
const manyItems = new ByteWriter().u32(0).u64(2n ** 62n).bytes();

const REFUSED: [name: string, file: TestGguf, ...parts: string[]][] = [
  ["another magic number", { magic: "GGML" }, '"GGML"'],
  ["a Git LFS pointer", { magic: "vers" }, "git lfs pull"],
  ["version 1", { version: 1 }, "is 1, expected 2 or 3"],
  ["version 4", { version: 4 }, "is 4, expected 2 or 3"],
  ["a big-endian file", { bigEndian: true, tensors: [TENSOR] }, "big-endian"],
  ["more tensors than bytes", { numTensors: 2n ** 60n }, "the number of tensors", `${2n ** 60n}`],
  ["more fields than bytes", { numFields: 2n ** 60n }, "metadata fields", `${2n ** 60n}`],
  ["a key twice", { fields: [[KEY, { u32: 1 }], [KEY, { u32: 2 }]] }, `"${KEY}"`, "twice"],
  ["a tensor twice", { tensors: [TENSOR, TENSOR] }, '"a"', "twice"],
  ["a text longer than the file", { fields: [[KEY, { raw: { type: 8, bytes: longText } }]] }, `"${KEY}"`, "claims"],
  ["a list longer than the file", { fields: [[KEY, { raw: { type: 9, bytes: manyItems } }]] }, `"${KEY}"`, "claims"],
  ["an unknown type of value", { fields: [[KEY, { raw: { type: 13, bytes: nested(0) } }]] }, `"${KEY}"`, "type 13"],
  ["deeply nested lists", { fields: [[KEY, { raw: { type: 9, bytes: nested(5) } }]] }, `"${KEY}"`, "nested"],
  ["a flag of 2", { fields: [[KEY, { bool: 2 }]] }, `"${KEY}"`, "0 or 1"],
  [
    "text that is not UTF-8",
    {
      fields: [[KEY, { raw: { type: 8, bytes: new ByteWriter().u64(1).put([0xff]).bytes() } }]],
    },
    `"${KEY}"`,
    "UTF-8",
  ],
  ["an unknown format", { tensors: [{ ...TENSOR, type: 99 }] }, '"a"', "99"],
  ["no dimensions", { tensors: [{ ...TENSOR, sizes: [] }] }, '"a"', "0 dimensions"],
  ["five dimensions", { tensors: [{ ...TENSOR, sizes: [1, 1, 1, 1, 1] }] }, '"a"', "5 dimensions"],
  ["a dimension of 0", { tensors: [{ ...TENSOR, sizes: [0, 2] }] }, '"a"', "dimension of 0"],
  [
    "an absurd dimension",
    { tensors: [{ ...TENSOR, sizes: [2n ** 62n], data: new Uint8Array(4) }] },
    '"a"',
    "dimension",
  ],
  [
    "a shape whose bytes overflow",
    {
      tensors: [{ ...TENSOR, sizes: [2 ** 30, 2 ** 30, 2 ** 30], data: new Uint8Array(4) }],
    },
    '"a"',
    "too large",
  ],
  ["rows that are no whole blocks", { tensors: [{ ...TENSOR, sizes: [33, 2], type: 3 }] }, '"a"', "blocks of 32"],
  ["tensors that overlap", { tensors: [TENSOR, { ...OTHER, offset: 0 }] }, '"b"', "byte 0"],
  ["a gap between tensors", { tensors: [TENSOR, { ...OTHER, offset: 64 }] }, '"b"', "byte 64"],
  ["an offset that is not aligned", { tensors: [TENSOR, { ...OTHER, offset: 33 }] }, '"b"', "byte 33"],
  ["an offset beyond all bytes", { tensors: [{ ...TENSOR, offset: 2n ** 63n }] }, '"a"', "starts at byte"],
  ["a tensor longer than the file", { tensors: [{ ...TENSOR, data: new Uint8Array(8) }] }, "incomplete"],
  ["bytes behind the last tensor", { tensors: [TENSOR], tail: new Uint8Array(100) }, "belong to no tensor"],
  ["an alignment of 0", { fields: [["general.alignment", { u32: 0 }]] }, "general.alignment", "power of 2"],
  ["an alignment of 48", { fields: [["general.alignment", { u32: 48 }]] }, "general.alignment", "power of 2"],
  ["an alignment that is a text", { fields: [["general.alignment", { text: "32" }]] }, "general.alignment"],
];

for (const [name, file, ...parts] of REFUSED) {
  Deno.test(`readGgufHeader refuses ${name}`, () => assertRefused(ggufBytes(file), ...parts));
}

Deno.test("readGgufHeader refuses a header that is cut anywhere", async () => {
  const whole = ggufBytes({ fields: [[KEY, { text: "name" }], ["list", { i32s: [1, 2] }]], tensors: [TENSOR] });
  for (let length = 0; length < whole.length; length++) await assertRefused(whole.subarray(0, length));
});

Deno.test("readGgufHeader says which file is missing", async () => {
  await assertRejects(() => readGgufHeader("/nowhere/m.gguf"), PagesiftError, "/nowhere/m.gguf");
});
