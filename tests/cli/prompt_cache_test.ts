/** `--prompt-cache` and `pagesift cache`: which folder, which limit, and what is shown and removed. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { defaultPromptFolder } from "../../engine/prompts/prompt_folder.ts";
import { ROOT } from "../../scripts/release/native_library.ts";
import { fixtureFolder } from "../support/fixture_model.ts";
import { runDeno } from "../support/process.ts";
import { TempFolder } from "../support/temp_folder.ts";
import { type FakeWorld, runFake, runGenerate } from "./fake_world.ts";

const ENVIRONMENT = { HOME: "/home/someone" };

function withEnvironment(variables: Record<string, string>): (world: FakeWorld) => void {
  return (world) => world.variables = variables;
}

const FOLDERS: [string, string[], Record<string, string>, string][] = [
  ["the user's cache folder", ["hi", "--prompt-cache"], ENVIRONMENT, "/home/someone/.cache/pagesift/prompts"],
  ["XDG_CACHE_HOME", ["--prompt-cache", "hi"], { XDG_CACHE_HOME: "/caches" }, "/caches/pagesift/prompts"],
  ["an attached folder", ["--prompt-cache=here", "hi"], ENVIRONMENT, "here"],
  ["a path as the next word", ["--prompt-cache", "/some/where", "hi"], ENVIRONMENT, "/some/where"],
  ["a path in the home folder", ["--prompt-cache", "~/prompts", "hi"], ENVIRONMENT, "/home/someone/prompts"],
  ["PAGESIFT_PROMPT_CACHE without the flag", ["hi"], { PAGESIFT_PROMPT_CACHE: "/from/env" }, "/from/env"],
  ["the flag before PAGESIFT_PROMPT_CACHE", ["--prompt-cache=x", "hi"], { PAGESIFT_PROMPT_CACHE: "/from/env" }, "x"],
];

for (const [what, args, variables, folder] of FOLDERS) {
  Deno.test(`generate saves prompts in ${what}`, async () => {
    const { engine, ending } = await runGenerate(args, withEnvironment(variables));
    assertEquals([engine.loaded?.promptCache?.folder, engine.prompts, ending], [folder, ["<s>hi"], { code: 0 }]);
  });
}

Deno.test("generate saves no prompt unless it is asked to", async () => {
  assertEquals((await runGenerate(["hi"], withEnvironment(ENVIRONMENT))).engine.loaded?.promptCache, undefined);
});

Deno.test("--prompt-cache without any folder is refused", async () => {
  const { ending, stderr } = await runGenerate(["hi", "--prompt-cache"]);
  assertEquals(ending, { code: 2 });
  assertStringIncludes(stderr, "--prompt-cache=DIR");
});

for (const [text, bytes] of [["20GB", 20e9], ["1.5tb", 1.5e12], ["300 MB", 3e8], ["1000", 1000]] as const) {
  Deno.test(`--prompt-cache-limit ${text} is ${bytes} bytes`, async () => {
    const { engine } = await runGenerate(["hi", "--prompt-cache=x", "--prompt-cache-limit", text]);
    assertEquals(engine.loaded?.promptCache?.limitBytes, bytes);
  });
}

Deno.test("--prompt-cache-limit refuses what is no size", async () => {
  const { ending, stderr } = await runGenerate(["hi", "--prompt-cache-limit", "much"]);
  assertEquals(ending, { code: 2 });
  assertStringIncludes(stderr, "20GB");
});

const CLI = join(ROOT, "cli", "main.ts");
const MODEL = fixtureFolder("llama-f32");

async function pagesift(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return await runDeno(["run", "-A", CLI, ...args]);
}

async function save(folder: string, command: string[], text: string): Promise<{ code: number; stderr: string }> {
  return await pagesift(...command, "--device", "cpu", "-m", MODEL, `--prompt-cache=${folder}`, "-v", text.repeat(60));
}

Deno.test("cache list shows saved prompts, and cache clear removes them and nothing else", async () => {
  using folder = new TempFolder();
  Deno.writeTextFileSync(join(folder.path, "notes.txt"), "mine");
  await save(folder.path, ["generate", "-n", "2"], "One fish. ");
  await save(folder.path, ["generate", "-n", "2"], "Two ships. ");
  const list = await pagesift("cache", "list", `--prompt-cache=${folder.path}`, "--json");
  const prompts = list.stdout.trim().split("\n").map((line) => JSON.parse(line));
  assertEquals(prompts.length, 2);
  assert(prompts.every(({ tokens, bytes }) => tokens >= 64 && bytes > 1000));
  const cleared = await pagesift("cache", "clear", `--prompt-cache=${folder.path}`);
  assertEquals([cleared.code, Array.from(Deno.readDirSync(folder.path), ({ name }) => name)], [0, ["notes.txt"]]);
  assertEquals((await pagesift("cache", "list", `--prompt-cache=${folder.path}`, "--json")).stdout, "");
});

Deno.test("cache list of a folder that does not exist shows nothing and creates nothing", async () => {
  using folder = new TempFolder();
  const missing = join(folder.path, "missing");
  const { code, stdout } = await pagesift("cache", "list", `--prompt-cache=${missing}`);
  assertEquals([code, stdout, Array.from(Deno.readDirSync(folder.path))], [0, "", []]);
});

Deno.test("cache list refuses words", async () => {
  const { ending, stderr } = await runFake(["cache", "list", "everything"], withEnvironment(ENVIRONMENT));
  assertEquals(ending, { code: 2 });
  assertStringIncludes(stderr, "everything");
});

Deno.test("inspect-pages loads what generate saved", async () => {
  using folder = new TempFolder();
  await save(folder.path, ["generate", "-n", "2", "--sparse-budget", "32"], "One fish. ");
  const { code, stderr } = await save(folder.path, ["inspect-pages", "-n", "2", "--sparse-budget", "32"], "One fish. ");
  assertEquals(code, 0, stderr);
  assert(/[1-9][\d,]* of them reused/.test(stderr), stderr);
});

Deno.test("The default folder follows the convention of the platform", () => {
  const env = (name: string): string | undefined => ({ HOME: "/me", LOCALAPPDATA: "/local" })[name];
  const folders = (["linux", "darwin", "windows"] as const).map((os) => defaultPromptFolder(env, os));
  assertEquals(folders, [
    "/me/.cache/pagesift/prompts",
    "/me/Library/Caches/pagesift/prompts",
    "/local/pagesift/prompts",
  ]);
});
