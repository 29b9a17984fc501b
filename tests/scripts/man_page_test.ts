import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { placesOf } from "../../cli/completions/places.ts";
import { program } from "../../cli/program.ts";
import { manPage } from "../../scripts/release/man_page.ts";
import { withFiles } from "../support/folders.ts";

async function hasGroff(): Promise<boolean> {
  try {
    return (await new Deno.Command("groff", { args: ["--version"], stdout: "null" }).output()).success;
  } catch {
    return false;
  }
}

Deno.test("manPage() documents every command and every flag", () => {
  const text = manPage().replaceAll("\\-", "-");
  for (const { path, words, options } of placesOf(program)) {
    if (words.length > 0) continue;
    assertStringIncludes(text, `\n.SH ${path.join(" ").toUpperCase()}\n`);
    for (const { flags } of options) assertStringIncludes(text, `\\fB${flags[0]}\\fR`);
  }
});

Deno.test("manPage() begins with the title and the name, as man and apropos expect", () => {
  const lines = manPage().split("\n");
  assert(lines[0]?.startsWith(".TH PAGESIFT 1 "));
  assertEquals(lines[1], ".SH NAME");
  assert(lines[2]?.startsWith("pagesift \\- "));
});

Deno.test({ name: "groff renders manPage() without a warning", ignore: !(await hasGroff()) }, async () => {
  await withFiles({ "pagesift.1": manPage() }, async (folder) => {
    const args = ["-man", "-ww", "-Tutf8", "-P-c", "pagesift.1"];
    const { code, stdout, stderr } = await new Deno.Command("groff", { args, cwd: folder }).output();
    assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
    assertStringIncludes(new TextDecoder().decode(stdout), 'pagesift generate "Once upon a time" -n 60');
  });
});
