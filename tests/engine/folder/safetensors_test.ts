import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { PagesiftError } from "../../../engine/errors.ts";
import { readSafetensorsHeader, readTensorInPieces, type TensorEntry } from "../../../engine/folder/safetensors.ts";
import { withFiles } from "../../support/folders.ts";
import { rawSafetensors, safetensorsBytes, type TestTensor } from "../../support/safetensors_bytes.ts";

const FIXTURES = fromFileUrl(new URL("../../fixtures/hf", import.meta.url));
const GOOD: TestTensor = { dtype: "F32", shape: [2, 2], data_offsets: [0, 16] };

async function assertRefused(bytes: Uint8Array, ...parts: string[]): Promise<void> {
  await withFiles({ "w.safetensors": bytes }, async (folder) => {
    const error = await assertRejects(() => readSafetensorsHeader(join(folder, "w.safetensors")), PagesiftError);
    assertEquals(error.kind, "model");
    for (const part of ["w.safetensors", ...parts]) assertStringIncludes(error.message, part);
    assert(!error.message.includes("\n") && !error.message.endsWith("."));
  });
}

Deno.test("readSafetensorsHeader reads dtype, shape and place of every tensor", async () => {
  const file = join(FIXTURES, "llama-f32", "model.safetensors");
  const header = await readSafetensorsHeader(file);
  assertEquals([header.tensors.size, header.fileBytes], [30, 879_368]);
  const { name, dtype, shape, bytes } = header.tensors.get("model.embed_tokens.weight")!;
  assertEquals({ name, dtype, shape: [...shape], bytes }, {
    name: "model.embed_tokens.weight",
    dtype: "F32",
    shape: [700, 64],
    bytes: 700 * 64 * 4,
  });
});

Deno.test("readSafetensorsHeader counts offsets from the start of the file", async () => {
  const bytes = safetensorsBytes({ b: { ...GOOD, data_offsets: [16, 32] }, a: GOOD }, 32);
  await withFiles({ w: bytes }, async (folder) => {
    const { tensors } = await readSafetensorsHeader(join(folder, "w"));
    assertEquals([...tensors.values()].map(({ name, offsetBytes }) => [name, offsetBytes]), [
      ["a", bytes.length - 32],
      ["b", bytes.length - 16],
    ]);
  });
});

Deno.test("readSafetensorsHeader reads a scalar, padding and metadata", async () => {
  const scalar = { dtype: "F32", shape: [], data_offsets: [0, 4] };
  const text = JSON.stringify({ "__metadata__": { format: "pt" }, scalar }) + "   ";
  await withFiles({ w: safetensorsBytes(text, 4) }, async (folder) => {
    assertEquals([...(await readSafetensorsHeader(join(folder, "w"))).tensors.keys()], ["scalar"]);
  });
});

Deno.test("readSafetensorsHeader reads tensors of size 0 between others, at the start and at the end", async () => {
  const empty = (at: number): TestTensor => ({ dtype: "F32", shape: [0, 4], data_offsets: [at, at] });
  const all = { a: empty(0), b: GOOD, c: empty(16), d: { ...GOOD, data_offsets: [16, 32] }, e: empty(32) };
  await withFiles({ w: safetensorsBytes(all, 32) }, async (folder) => {
    const { tensors } = await readSafetensorsHeader(join(folder, "w"));
    assertEquals([...tensors.values()].map(({ name, bytes }) => [name, bytes]), [
      ...[["a", 0], ["b", 16], ["c", 0], ["d", 16], ["e", 0]],
    ]);
  });
});

Deno.test("readSafetensorsHeader refuses a tensor of size 0 inside another", async () => {
  const empty = { dtype: "F32", shape: [0], data_offsets: [8, 8] };
  await assertRefused(safetensorsBytes({ GOOD, empty }, 16), '"empty"', "overlaps");
});

Deno.test("readSafetensorsHeader takes __proto__ for a name like any other", async () => {
  const text = `{"__proto__": ${JSON.stringify(GOOD)}}`;
  await withFiles({ w: safetensorsBytes(text, 16) }, async (folder) => {
    assertEquals([...(await readSafetensorsHeader(join(folder, "w"))).tensors.keys()], ["__proto__"]);
  });
});

Deno.test("readSafetensorsHeader says which file is missing", async () => {
  await assertRejects(() => readSafetensorsHeader("/nowhere/w.safetensors"), PagesiftError, "/nowhere/w.safetensors");
});

Deno.test("readSafetensorsHeader refuses a device", async () => {
  await assertRejects(() => readSafetensorsHeader("/dev/zero"), PagesiftError, "expected a regular file");
});

const tensors = (...list: TestTensor[]) => Object.fromEntries(list.map((tensor, i) => [`t${i}`, tensor]));
const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
const many = Array.from({ length: 100_002 }, (_, i) => `"${i}":0`).join(",");

const REFUSED: [name: string, bytes: Uint8Array, ...parts: string[]][] = [
  ["an empty file", new Uint8Array(0), "only 0 bytes"],
  ["a file of seven bytes", new Uint8Array(7), "only 7 bytes"],
  ["a Git LFS pointer", new TextEncoder().encode(pointer), "is a Git LFS pointer", "git lfs pull"],
  ["a header longer than the file", rawSafetensors(new Uint8Array(2), 0, 100n), "incomplete: have 10 of 108 bytes"],
  ["a header over the limit", rawSafetensors(new Uint8Array(2), 0, 2n ** 63n), "9223372036854775808", "100000000"],
  ["a header that is not UTF-8", rawSafetensors(Uint8Array.of(0x7b, 0xff, 0x7d)), "not UTF-8"],
  ["a header that is not JSON", safetensorsBytes("{"), "not valid JSON"],
  ["a header that is a list", safetensorsBytes("[]"), "expected a JSON object"],
  ["a name that appears twice", safetensorsBytes('{"a": 1, "a": 2}'), '"a" appears twice'],
  ["a name that appears twice in disguise", safetensorsBytes('{"a": 1, "\\u0061": 2}'), '"a" appears twice'],
  ["a field that appears twice", safetensorsBytes('{"a": {"dtype": "F32", "dtype": "U8"}}'), '"dtype" appears twice'],
  ["deep nesting", safetensorsBytes('{"a":'.repeat(300_000)), "nested deeper than 8 levels"],
  ["100,000 entries and more", safetensorsBytes(`{${many}}`), "more than 100001 entries"],
  ["metadata that is a number", safetensorsBytes({ __metadata__: 1 }), '"__metadata__"'],
  ["a tensor that is a number", safetensorsBytes({ t0: 1 }), '"t0"', "expected an object"],
  ["an unknown dtype", safetensorsBytes(tensors({ ...GOOD, dtype: "Q4" }), 16), '"t0"', "BF16", 'found "Q4"'],
  ["a dtype named like a built-in", safetensorsBytes(tensors({ ...GOOD, dtype: "toString" }), 16), '"toString"'],
  ["a missing shape", safetensorsBytes(tensors({ ...GOOD, shape: null }), 16), '"t0"', "shape must be a list"],
  ["a rank over eight", safetensorsBytes(tensors({ ...GOOD, shape: new Array(9).fill(1) }), 16), "at most 8 sizes"],
  ["a zero dimension with data", safetensorsBytes(tensors({ ...GOOD, shape: [0, 4] }), 16), '"t0"', "takes 0 bytes"],
  ["a fractional dimension", safetensorsBytes(tensors({ ...GOOD, shape: [2.5] }), 16), "integers of at least 0"],
  ["a negative dimension", safetensorsBytes(tensors({ ...GOOD, shape: [-2, -2] }), 16), "integers of at least 0"],
  [
    "a product beyond 2^53",
    safetensorsBytes(tensors({ ...GOOD, shape: [2 ** 31, 2 ** 31] }), 16),
    "[2147483648,2147483648] is too large",
  ],
  ["a span of another size", safetensorsBytes(tensors({ ...GOOD, shape: [3] }), 16), "takes 12 bytes", "span 16"],
  ["negative offsets", safetensorsBytes(tensors({ ...GOOD, data_offsets: [-16, 0] }), 16), "not negative"],
  ["offsets beyond 2^53", safetensorsBytes(tensors({ ...GOOD, data_offsets: [0, 2 ** 60] }), 16), "data_offsets"],
  ["three offsets", safetensorsBytes(tensors({ ...GOOD, data_offsets: [0, 16, 32] }), 16), "two integers"],
  ["reversed offsets", safetensorsBytes(tensors({ ...GOOD, data_offsets: [16, 0] }), 16), "reversed"],
  [
    "overlapping tensors",
    safetensorsBytes(tensors(GOOD, { ...GOOD, data_offsets: [8, 24] }), 24),
    '"t1"',
    "overlaps the tensor before it by 8 bytes",
  ],
  ["two tensors in one place", safetensorsBytes(tensors(GOOD, GOOD), 16), "overlaps"],
  [
    "a gap between tensors",
    safetensorsBytes(tensors(GOOD, { ...GOOD, data_offsets: [20, 36] }), 36),
    '"t1"',
    "starts 4 bytes after",
  ],
  [
    "a gap before the first tensor",
    safetensorsBytes(tensors({ ...GOOD, data_offsets: [4, 20] }), 20),
    "starts 4 bytes",
  ],
  ["a file cut short", safetensorsBytes(tensors(GOOD), 15), "incomplete: have", "download it again"],
  ["bytes after the last tensor", safetensorsBytes(tensors(GOOD), 17), "1 bytes follow the last tensor"],
];

for (const [name, bytes, ...parts] of REFUSED) {
  Deno.test(`readSafetensorsHeader refuses ${name}`, () => assertRefused(bytes, ...parts));
}

async function withEntry(use: (file: string, entry: TensorEntry) => void): Promise<void> {
  const bytes = safetensorsBytes({ a: spanOf(0, 4), b: spanOf(4, 24) }, 24);
  await withFiles({ w: bytes }, async (folder) => {
    const { tensors } = await readSafetensorsHeader(join(folder, "w"));
    use(join(folder, "w"), tensors.get("b")!);
  });
}

function spanOf(begin: number, end: number): TestTensor {
  return { dtype: "U8", shape: [end - begin], data_offsets: [begin, end] };
}

Deno.test("readTensorInPieces hands out pieces in order, the last one shorter", async () => {
  await withEntry((file, entry) => {
    const pieces: number[][] = [];
    readTensorInPieces(file, entry, 8, (bytes, offset) => pieces.push([offset, bytes.length, bytes[0]!]));
    assertEquals(pieces, [[0, 8, 4], [8, 8, 12], [16, 4, 20]]);
  });
});

Deno.test("readTensorInPieces reuses one buffer", async () => {
  await withEntry((file, entry) => {
    const buffers = new Set<ArrayBuffer>();
    readTensorInPieces(file, entry, 8, (bytes) => buffers.add(bytes.buffer));
    assertEquals(buffers.size, 1);
  });
});

Deno.test("readTensorInPieces reads an open file and leaves it open", async () => {
  await withEntry((file, entry) => {
    using handle = Deno.openSync(file);
    let bytesRead = 0;
    readTensorInPieces(handle, entry, 1024, (bytes) => bytesRead += bytes.length);
    assertEquals([bytesRead, handle.statSync().isFile], [20, true]);
  });
});

Deno.test("readTensorInPieces refuses a file that became shorter", async () => {
  await withEntry((file, entry) => {
    Deno.truncateSync(file, entry.offsetBytes + 10);
    const read = () => readTensorInPieces(file, entry, 8, () => {});
    const error = assertThrows(read, PagesiftError, "became shorter");
    assertEquals(error.kind, "model");
  });
});

Deno.test("readTensorInPieces refuses a file that is gone", async () => {
  await withEntry((file, entry) => {
    assertThrows(() => readTensorInPieces(`${file}.gone`, entry, 8, () => {}), PagesiftError, "Cannot open");
  });
});
