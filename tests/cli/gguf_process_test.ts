/** GGUF files at the command line. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { convertGguf } from "../../scripts/peers/convert_gguf.ts";
import { withFiles } from "../support/folders.ts";
import { ggufBytes } from "../support/gguf_bytes.ts";
import { type Finished, runDeno } from "../support/process.ts";

const MAIN = fromFileUrl(new URL("../../cli/main.ts", import.meta.url));
const DEFAULT = fromFileUrl(new URL("../../models/default", import.meta.url));

function run(command: string, model: string, ...args: string[]): Promise<Finished> {
  return runDeno(["run", "-A", MAIN, ...command.split(" "), "-m", model, "--device", "cpu", "-t", "2", ...args]);
}

Deno.test("generate answers with a GGUF file as with the folder that it comes from", async () => {
  await withFiles({}, async (folder) => {
    const { path } = await convertGguf(DEFAULT, join(folder, "model.gguf"));
    const args = ["--no-stdin", "-n", "12", "--temp", "0", "The war began when"];
    const [file, whole] = [await run("generate", path, ...args), await run("generate", DEFAULT, ...args)];
    assertEquals([file.code, file.stdout], [0, whole.stdout], file.stderr);
  });
});

Deno.test("bench generate measures a GGUF file", async () => {
  await withFiles({}, async (folder) => {
    const { path } = await convertGguf(DEFAULT, join(folder, "model.gguf"));
    const args = ["-p", "16", "-n", "4", "-d", "0", "-r", "2", "-o", "json"];
    const { code, stdout, stderr } = await run("bench generate", path, ...args);
    assertEquals(code, 0, stderr);
    assertStringIncludes(stdout, "model.gguf");
  });
});

for (
  const [name, bytes, ...parts] of [
    ["a damaged GGUF file", new TextEncoder().encode("GGUF"), "version"],
    [
      "a GGUF file of an unknown architecture",
      ggufBytes({ fields: [["general.architecture", { text: "mamba" }]] }),
      "mamba",
    ],
    ["a file of another kind", new TextEncoder().encode("not a model at all"), "GGUF"],
  ] as [string, Uint8Array, ...string[]][]
) {
  Deno.test(`generate refuses ${name} with exit code 3 and one line`, async () => {
    await withFiles({ "bad.gguf": bytes }, async (folder) => {
      const { code, stdout, stderr } = await run("generate", join(folder, "bad.gguf"), "--no-stdin", "Hi");
      assertEquals([code, stdout, stderr.trim().split("\n").length], [3, "", 1], stderr);
      for (const part of ["bad.gguf", ...parts]) assertStringIncludes(stderr, part);
    });
  });
}

Deno.test("generate names the GGUF file in a folder that has nothing else", async () => {
  await withFiles({ "m.gguf": "" }, async (folder) => {
    const { code, stderr } = await run("generate", folder, "--no-stdin", "Hi");
    assertEquals(code, 3);
    assertStringIncludes(stderr, join(folder, "m.gguf"));
  });
});
