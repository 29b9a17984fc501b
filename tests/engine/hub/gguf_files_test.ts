import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { PagesiftError } from "../../../engine/errors.ts";
import { chooseGguf } from "../../../engine/hub/gguf_files.ts";
import { COMMIT } from "../../support/fake_hub.ts";
import { assertRefused, withHub } from "../../support/hub_place.ts";

const FILES = ["README.md", "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m.Q8_0.gguf", "mmproj-m-Q8_0.gguf"];
const SPLIT = ["Q6_K/m-Q6_K-00001-of-00002.gguf", "Q6_K/m-Q6_K-00002-of-00002.gguf"];

for (
  const [wanted, chosen] of [
    ["Q4_K_M", ["m-Q4_K_M.gguf"]],
    ["q4_k_m", ["m-Q4_K_M.gguf"]],
    ["Q8_0", ["m.Q8_0.gguf"]],
    ["Q6_K", SPLIT],
    ["m-Q4_K_S.gguf", ["m-Q4_K_S.gguf"]],
    [SPLIT[0], SPLIT],
  ] as const
) {
  Deno.test(`chooseGguf finds "${wanted}"`, () => {
    assertEquals(chooseGguf([...FILES, ...SPLIT], wanted, "org/name"), [...chosen]);
  });
}

Deno.test("chooseGguf takes the only model where none is named", () => {
  assertEquals(chooseGguf(["m-Q8_0.gguf", "mmproj-m.gguf"], undefined, "org/name"), ["m-Q8_0.gguf"]);
});

for (
  const [name, files, wanted] of [
    ["a format that is not there", FILES, "Q4_K"],
    ["several models where none is named", FILES, undefined],
    ["a file with a part missing", SPLIT.slice(0, 1), "Q6_K"],
    ["a path that leaves the repository", ["../m-Q4_0.gguf", "a/../m-Q4_0.gguf"], "Q4_0"],
  ] as const
) {
  Deno.test(`chooseGguf refuses ${name}`, () => {
    const { kind, message } = assertThrows(() => chooseGguf(files, wanted, "org/name"), PagesiftError);
    assertEquals(kind, "model");
    assertStringIncludes(message, "org/name");
  });
}

const HUB = { "README.md": "", "m-Q4_K_M.gguf": "four", "m-Q8_0.gguf": "eight", "config.json": "{}" };

Deno.test("findModelFolder downloads the GGUF file of a format and nothing else", async () => {
  await withHub(async ({ find, model }) => {
    const file = await find({}, "org/name:Q4_K_M");
    assertEquals(file, join(model, "snapshots", COMMIT, "m-Q4_K_M.gguf"));
    assertEquals(await Deno.readTextFile(file), "four");
    assertEquals(Array.from(Deno.readDirSync(join(model, "snapshots", COMMIT))).length, 1);
  }, HUB);
});

Deno.test("findModelFolder asks the network nothing about a GGUF file that is cached", async () => {
  await withHub(async ({ find, hub }) => {
    const file = await find({}, "org/name:m-Q8_0.gguf");
    hub.requests.length = 0;
    assertEquals([await find({ offline: true }, "org/name:Q8_0"), hub.requests.length], [file, 0]);
  }, HUB);
});

Deno.test("findModelFolder downloads all parts of a split GGUF file, also from a folder", async () => {
  const parts = { [SPLIT[0]!]: "one", [SPLIT[1]!]: "other" };
  await withHub(async ({ find }) => {
    const file = await find({}, "org/name:Q6_K");
    assertEquals([await Deno.readTextFile(file), await Deno.readTextFile(file.replace("-00001-", "-00002-"))], [
      "one",
      "other",
    ]);
    assertEquals(await find({ offline: true }, "org/name:Q6_K"), file);
  }, parts);
});

Deno.test("findModelFolder takes the only GGUF file of a model without safetensors", async () => {
  await withHub(async ({ find }) => {
    assertEquals(await Deno.readTextFile(await find()), "four");
  }, { "m-Q4_K_M.gguf": "four" });
});

Deno.test("findModelFolder lists the GGUF files where several fit", async () => {
  await withHub(async ({ find }) => {
    await assertRefused(() => find(), "model", "m-Q4_K_M.gguf", "m-Q8_0.gguf");
  }, { "m-Q4_K_M.gguf": "four", "m-Q8_0.gguf": "eight" });
});

Deno.test("findModelFolder names a command that downloads a missing GGUF format", async () => {
  await withHub(async ({ find }) => {
    await assertRefused(
      () => find({ offline: true }, "org/name:Q8_0"),
      "network",
      'hf download org/name --include "*Q8_0*"',
    );
  }, HUB);
});
