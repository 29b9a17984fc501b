import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { openCheckpoint } from "../../../engine/folder/checkpoint.ts";
import { PagesiftError } from "../../../engine/errors.ts";
import { withFiles } from "../../support/folders.ts";
import { fileOf } from "../../support/safetensors_bytes.ts";

const FIXTURES = fromFileUrl(new URL("../../fixtures/hf", import.meta.url));
const INDEX = "model.safetensors.index.json";

function index(weight_map: unknown): string {
  return JSON.stringify({ metadata: { total_size: 8 }, weight_map });
}

async function assertRefused(folder: string, ...parts: string[]): Promise<void> {
  const error = await assertRejects(() => openCheckpoint(folder), PagesiftError);
  assertEquals(error.kind, "model");
  for (const part of parts) assertStringIncludes(error.message, part);
  assert(!error.message.includes("\n") && !error.message.endsWith("."));
}

const FOLDERS = [...Deno.readDirSync(FIXTURES)].map((entry) => entry.name).sort();
for (const name of FOLDERS) {
  Deno.test(`openCheckpoint opens ${name}`, async () => {
    const { tensors, totalBytes } = await openCheckpoint(join(FIXTURES, name));
    assert(tensors.has("model.embed_tokens.weight") && totalBytes > 100_000);
  });
}

Deno.test("openCheckpoint says which shard holds a tensor", async () => {
  const { tensors } = await openCheckpoint(join(FIXTURES, "qwen3-sharded-bf16"));
  assertEquals(new Set([...tensors.values()].map(({ file }) => file)).size, 8);
});

Deno.test("openCheckpoint sums the bytes of all tensors", async () => {
  await withFiles({ [INDEX]: index({ a: "1.safetensors", b: "2.safetensors" }), ...shards() }, async (folder) => {
    assertEquals((await openCheckpoint(folder)).totalBytes, 8);
  });
});

function shards(): Record<string, Uint8Array> {
  return { "1.safetensors": fileOf("a"), "2.safetensors": fileOf("b") };
}

Deno.test("openCheckpoint takes the only safetensors file of any name", async () => {
  await withFiles({ "tiny.safetensors": fileOf("a") }, async (folder) => {
    assertEquals([...(await openCheckpoint(folder)).tensors.keys()], ["a"]);
  });
});

Deno.test("openCheckpoint ignores files that the index does not name", async () => {
  const files = { [INDEX]: index({ a: "1.safetensors" }), ...shards() };
  await withFiles(files, async (folder) => {
    assertEquals([...(await openCheckpoint(folder)).tensors.keys()], ["a"]);
  });
});

for (
  const [name, content] of [
    ["an index of files that are missing", index({ a: "1.safetensors", z: "2.safetensors" })],
    ["an index that names more files", index({ a: "model.safetensors", b: "2.safetensors" })],
    ["an index that is no JSON", "x"],
    ["an index without a map", "{}"],
    ["an index that leaves the folder", index({ a: "../w.safetensors" })],
  ] as const
) {
  Deno.test(`openCheckpoint takes whole weights beside ${name}, with a warning`, async () => {
    await withFiles({ "model.safetensors": fileOf("a"), [INDEX]: content }, async (folder) => {
      const { tensors, notices } = await openCheckpoint(folder);
      assertEquals([[...tensors.keys()], notices.length, notices[0]?.level], [["a"], 1, "warning"]);
      assertStringIncludes(notices[0]?.text ?? "", INDEX);
    });
  });
}

Deno.test("openCheckpoint says nothing of an index that names the whole weights", async () => {
  const files = { "model.safetensors": fileOf("a"), [INDEX]: index({ a: "model.safetensors" }) };
  await withFiles(files, async (folder) => assertEquals((await openCheckpoint(folder)).notices, []));
});

const huge = Object.fromEntries(
  Array.from({ length: 13 }, (_, i) => [`t${String(i).padStart(2, "0")}`, "1.safetensors"]),
);

const REFUSED: [name: string, files: Record<string, string | Uint8Array>, ...parts: string[]][] = [
  ["an empty folder", {}, "No weights", INDEX, '"model.safetensors"', '"*.safetensors"'],
  ["a folder of other formats", { "m.pt": "", "m.bin": "" }, "only m.bin, m.pt", "convert"],
  ["a folder with a GGUF file", { "m.gguf": "" }, "only m.gguf", "give the file itself"],
  ["several files without an index", shards(), "found 1.safetensors, 2.safetensors"],
  ["an index that is no JSON", { [INDEX]: "x" }, INDEX, "not valid JSON"],
  ["an index without a map", { [INDEX]: "{}" }, '"weight_map"', "must be an object"],
  ["an empty map", { [INDEX]: index({}) }, "names no tensor"],
  [
    "missing shards, all of them",
    { [INDEX]: index({ a: "1.safetensors", b: "2.safetensors" }) },
    "1.safetensors, 2.safet",
  ],
  [
    "tensors that are not in their shard",
    { [INDEX]: index({ a: "2.safetensors", b: "2.safetensors", c: "1.safetensors" }), ...shards() },
    "a (2.safetensors), c (1.safetensors)",
  ],
  ["more names than a line holds", { [INDEX]: index(huge), ...shards() }, "t09 (1.safetensors) and 3 more"],
  [
    "a tensor in two shards",
    { [INDEX]: index({ a: "1.safetensors", b: "2.safetensors" }), ...shards(), "2.safetensors": fileOf("a", "b") },
    "in two files",
    "a (1.safetensors, 2.safetensors)",
  ],
  [
    "tensors that the index does not name",
    { [INDEX]: index({ a: "1.safetensors" }), "1.safetensors": fileOf("a", "x", "y") },
    "missing in",
    "x, y",
  ],
];

for (const [name, files, ...parts] of REFUSED) {
  Deno.test(`openCheckpoint refuses ${name}`, () => withFiles(files, (folder) => assertRefused(folder, ...parts)));
}

for (
  const path of [
    "../w.safetensors",
    "/tmp/w.safetensors",
    "x/w.safetensors",
    "x\\w.safetensors",
    "..",
    "",
    "w.bin",
    7,
  ]
) {
  Deno.test(`openCheckpoint refuses an index that names ${JSON.stringify(path)}`, async () => {
    const files = { [INDEX]: index({ a: path }), ...shards() };
    await withFiles(files, (folder) => assertRefused(folder, '"a"', "plain *.safetensors name"));
  });
}

Deno.test("openCheckpoint refuses a link out of the folder", async () => {
  await withFiles(shards(), async (other) => {
    await withFiles({}, async (folder) => {
      await Deno.symlink(join(other, "1.safetensors"), join(folder, "model.safetensors"));
      await assertRefused(folder, "model.safetensors", "a link out of its folder");
    });
  });
});

Deno.test("openCheckpoint refuses a link to nothing", async () => {
  await withFiles({}, async (folder) => {
    await Deno.symlink("nothing", join(folder, "model.safetensors"));
    await assertRefused(folder, "Cannot open", "download the model again");
  });
});

Deno.test("openCheckpoint refuses a device", async () => {
  await withFiles({}, async (folder) => {
    await Deno.symlink("/dev/zero", join(folder, "model.safetensors"));
    await assertRefused(folder, "a link out of its folder");
  });
});

Deno.test("openCheckpoint refuses a folder that is not there", async () => {
  await assertRefused("/nowhere/model", "Cannot read folder", "/nowhere/model");
});

/** A model folder in the layout of the Hugging Face cache, whose weights link to `target`. */
async function withSnapshot(target: string, use: (snapshot: string) => Promise<void>): Promise<void> {
  await withFiles({}, async (hub) => {
    const snapshot = join(hub, "models--org--name", "snapshots", "abc");
    await Deno.mkdir(snapshot, { recursive: true });
    for (const repository of ["models--org--name", "models--org--other"]) {
      await Deno.mkdir(join(hub, repository, "blobs"), { recursive: true });
      await Deno.writeFile(join(hub, repository, "blobs", "123"), fileOf("a"));
    }
    await Deno.symlink(target, join(snapshot, "model.safetensors"));
    await use(snapshot);
  });
}

Deno.test("openCheckpoint follows a snapshot's link to a blob of the same model", async () => {
  await withSnapshot("../../blobs/123", async (snapshot) => {
    assertEquals([...(await openCheckpoint(snapshot)).tensors.keys()], ["a"]);
  });
});

Deno.test("openCheckpoint refuses a snapshot's link to a blob of another model", async () => {
  await withSnapshot("../../../models--org--other/blobs/123", async (snapshot) => {
    await assertRefused(snapshot, "a link out of its folder");
  });
});
