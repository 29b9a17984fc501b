/** The launcher of the npm package, in folders laid out as npm does. `scripts/release/check_npm_package.ts` runs npm itself. */
import { assertEquals, assertMatch } from "@std/assert";
import { dirname, join } from "@std/path";
import { CUDA_PACKAGE, NPM_LAUNCHER } from "../../scripts/release/launcher.ts";

const IGNORE = Deno.build.os !== "linux";
/** Stands for Deno: prints its last argument and the variable that names the CUDA library, or does what the test asks. */
const FAKE_DENO = `#!/bin/sh
for last in "$@"; do :; done
case $last in
  fail) exit 7 ;;
  wait) echo ready; exec sleep 60 ;;
esac
echo "$last \${PAGESIFT_CUDA_LIBRARY:-none}"
`;

interface Installation {
  modules: string;
  launcher: string;
}

async function write(path: string, text: string, mode = 0o644): Promise<void> {
  await Deno.mkdir(dirname(path), { recursive: true });
  await Deno.writeTextFile(path, text, { mode });
}

/** A global installation, called through npm's link in bin. */
async function withInstallation(use: (installation: Installation) => Promise<void>): Promise<void> {
  const prefix = await Deno.makeTempDir({ prefix: "npm prefix " });
  try {
    const modules = join(prefix, "lib", "node_modules");
    await write(join(modules, "pagesift", "bin", "pagesift"), NPM_LAUNCHER, 0o755);
    await Deno.mkdir(join(prefix, "bin"));
    const launcher = join(prefix, "bin", "pagesift");
    await Deno.symlink("../lib/node_modules/pagesift/bin/pagesift", launcher);
    await use({ modules, launcher });
  } finally {
    await Deno.remove(prefix, { recursive: true });
  }
}

async function addDeno(folder: string): Promise<void> {
  await write(join(folder, "deno", "package.json"), "{}");
  await write(join(folder, "deno", "deno"), FAKE_DENO, 0o755);
}

async function call(launcher: string, word: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = new Deno.Command(launcher, { args: [word], cwd: "/", clearEnv: true, env: { PATH: "/usr/bin:/bin" } });
  const { code, stdout, stderr } = await child.output();
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

function test(name: string, use: (installation: Installation) => Promise<void>): void {
  Deno.test({ name: `the npm launcher ${name}`, ignore: IGNORE, fn: () => withInstallation(use) });
}

test("finds Deno in the package's own node_modules", async ({ modules, launcher }) => {
  await addDeno(join(modules, "pagesift", "node_modules"));
  assertEquals(await call(launcher, "hello"), { code: 0, stdout: "hello none\n", stderr: "" });
});

test("finds Deno beside the package", async ({ modules, launcher }) => {
  await addDeno(modules);
  assertEquals((await call(launcher, "two words")).stdout, "two words none\n");
});

test("passes exit codes on", async ({ modules, launcher }) => {
  await addDeno(modules);
  assertEquals((await call(launcher, "fail")).code, 7);
});

test("names the CUDA library of the optional package", async ({ modules, launcher }) => {
  await addDeno(modules);
  await write(join(modules, CUDA_PACKAGE, "package.json"), "{}");
  const library = join(Deno.realPathSync(modules), CUDA_PACKAGE, "libpagesift_cuda.so");
  assertEquals((await call(launcher, "hello")).stdout, `hello ${library}\n`);
});

test("dies by the signal that it receives", async ({ modules, launcher }) => {
  await addDeno(modules);
  const child = new Deno.Command(launcher, { args: ["wait"], stdout: "piped" }).spawn();
  const reader = child.stdout.getReader();
  await reader.read();
  child.kill("SIGINT");
  assertEquals((await child.status).signal, "SIGINT");
  await reader.cancel();
});

test("ends with 1 and one line without the package deno", async ({ launcher }) => {
  const { code, stderr } = await call(launcher, "hello");
  assertEquals(code, 1);
  assertMatch(stderr, /^Error: .*deno.*npm\n$/);
});
