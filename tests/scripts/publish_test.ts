/** The JSR package: which files it contains, and that jsr.json describes the same package as deno.json. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { ROOT } from "../../scripts/release/native_library.ts";
import { runDeno } from "../support/process.ts";

interface Config {
  imports: Readonly<Record<string, string>>;
  [field: string]: unknown;
}

const PUBLISHED = /^(mod\.ts|(engine|ffi)\/[\w/]+\.ts|deno\.json|README\.md|LICENSE|SECURITY\.md)$/;

function readConfig(name: string): Config {
  return JSON.parse(Deno.readTextFileSync(join(ROOT, name)));
}

async function listPublished(): Promise<string[]> {
  const { code, stderr } = await runDeno(["publish", "--dry-run", "--allow-dirty"], {}, ROOT);
  assertEquals(code, 0, stderr);
  return [...stderr.matchAll(/^ +file:\/\/(\S+) \(/gm)].map(([, path = ""]) => path.slice(ROOT.length));
}

Deno.test("the package contains sources, the README, the licence and nothing else", async () => {
  const files = await listPublished();
  assert(files.includes("mod.ts") && files.length > 50, `${files.length} files`);
  for (const file of files) assertMatch(file, PUBLISHED);
});

Deno.test("jsr.json describes the package that deno.json describes", () => {
  const [jsr, deno] = [readConfig("jsr.json"), readConfig("deno.json")];
  for (const field of ["name", "version", "exports", "license", "publish"]) {
    assertEquals(jsr[field], deno[field], field);
  }
});

Deno.test("jsr.json imports the standard library from JSR and npm packages in the versions of deno.json", () => {
  const { imports } = readConfig("deno.json");
  for (const [name, target] of Object.entries(readConfig("jsr.json").imports)) {
    if (name.startsWith("@std/")) assert(target.startsWith(`jsr:${name.split("/", 2).join("/")}@`), target);
    else assertEquals(target, imports[name]);
  }
});

Deno.test("jsr.json maps everything that the package imports", async () => {
  const published = (await listPublished()).filter((file) => file.endsWith(".ts"));
  const bare = published.flatMap((file) => {
    const text = Deno.readTextFileSync(join(ROOT, file));
    return [...text.matchAll(/^(?:import|export)\s[^;]*?from\s+"((?!\.|node:)[^"]+)"/gm)].map(([, name = ""]) => name);
  });
  assertEquals([...new Set(bare)].sort(), Object.keys(readConfig("jsr.json").imports).sort());
});
