/** The archive on a machine that has only basic tools: unpacked, checked, and called in the ways that people do. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import config from "../../deno.json" with { type: "json" };
import { MAN_PAGE } from "../../scripts/release/stage.ts";
import { type Finished, runDeno } from "../support/process.ts";

const PACKAGE = fromFileUrl(new URL("../../scripts/release/package.ts", import.meta.url));
const NAME = `pagesift-${config.version}-linux-x64`;
/** What the launcher may use. */
const TOOLS = ["sh", "dirname", "readlink"];
const IGNORE = Deno.build.os !== "linux" || Deno.build.arch !== "x86_64";

async function run(command: string, args: readonly string[], options: Deno.CommandOptions = {}): Promise<Finished> {
  const { code, stdout, stderr } = await new Deno.Command(command, { ...options, args: [...args], stdin: "null" })
    .output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

async function findTool(name: string): Promise<string> {
  return (await run("sh", ["-c", `command -v ${name}`])).stdout.trim();
}

/** An unpacked package, without the CUDA library, and a place to call it from. */
class Unpacked implements AsyncDisposable {
  private constructor(readonly place: string, readonly folder: string, readonly tools: string) {}

  static async make(): Promise<Unpacked> {
    const place = await Deno.makeTempDir({ prefix: "unpacked here " });
    const packed = await runDeno(["run", "-A", "--no-check", PACKAGE, "--cpu-only", "--output", join(place, "dist")]);
    assertEquals(packed.code, 0, packed.stderr);
    assertMatch(packed.stdout, /^.*\.tar\.gz \([\d.]+ MB\)\n/);
    const unpacked = await run("tar", ["-xzf", join(place, "dist", `${NAME}.tar.gz`), "-C", place]);
    assertEquals(unpacked.code, 0, unpacked.stderr);
    const tools = join(place, "tools");
    const links = join(place, "links");
    for (const made of [tools, links]) await Deno.mkdir(made);
    for (const name of TOOLS) await Deno.symlink(await findTool(name), join(tools, name));
    return new Unpacked(place, join(place, NAME), tools);
  }

  /** Runs the launcher with no environment but a PATH of the basic tools. */
  async call(launcher: string, args: readonly string[], cwd = this.place): Promise<Finished> {
    return await run(launcher, args, { cwd, clearEnv: true, env: { PATH: this.tools, HOME: this.place } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.place, { recursive: true });
  }
}

Deno.test({ name: "deno task package makes a program that runs by itself", ignore: IGNORE }, async (context) => {
  await using unpacked = await Unpacked.make();
  const { folder, place } = unpacked;
  const launcher = join(folder, "bin", "pagesift");
  const before = [...Deno.readDirSync(place)].map(({ name }) => name).sort();

  await context.step("its checksums cover every file and hold", async () => {
    const { code, stdout } = await run("sha256sum", ["-c", "--strict", "lib/pagesift/SHA256SUMS"], { cwd: folder });
    assertEquals(code, 0, stdout);
    const files = await run("find", [".", "-type", "f"], { cwd: folder });
    assertEquals(stdout.trim().split("\n").length, files.stdout.trim().split("\n").length - 1);
  });

  await context.step("it contains the manual page and completions where a prefix has them", () => {
    for (const path of [MAN_PAGE, "share/bash-completion/completions/pagesift", "share/zsh/site-functions/_pagesift"]) {
      assert(Deno.statSync(join(folder, path)).size > 1000, path);
    }
  });

  await context.step("it contains the licences of its parts", () => {
    const text = Deno.readTextFileSync(join(folder, "lib", "pagesift", "THIRD_PARTY_LICENSES"));
    for (const part of ["Deno runtime", "deno-std", "@huggingface/tokenizers", "GCC runtime"]) {
      assertStringIncludes(text, part);
    }
  });

  await context.step("pagesift --version gives the version", async () => {
    assertEquals(await unpacked.call(launcher, ["--version"]), {
      code: 0,
      stdout: `pagesift ${config.version}\n`,
      stderr: "",
    });
  });

  await context.step("pagesift generate continues a prompt", async () => {
    const { code, stdout, stderr } = await unpacked.call(launcher, [
      "generate",
      "It was",
      "-n",
      "5",
      "--device",
      "cpu",
    ]);
    assertEquals([code, stderr], [0, ""]);
    assertMatch(stdout, /^ \S.*\n$/);
  });

  await context.step("pagesift bench quality finds the text that it asks about", async () => {
    const small = ["--task", "needle", "-l", "1k", "--documents", "1", "--facts", "1", "--budget", "128"];
    const args = ["bench", "quality", ...small, "--scorer", "unique", "--device", "cpu", "-o", "csv"];
    const { code, stdout, stderr } = await unpacked.call(launcher, args);
    assertEquals([code, stderr], [0, ""]);
    assertStringIncludes(stdout, "needle");
  });

  await context.step("pagesift works through symbolic links, from any folder", async () => {
    const links = join(place, "links");
    await Deno.symlink(join("..", NAME, "bin", "pagesift"), join(links, "first"));
    await Deno.symlink("first", join(links, "second"));
    const { code, stderr } = await unpacked.call(
      "./second",
      ["generate", "It was", "-n", "1", "--device", "cpu"],
      links,
    );
    assertEquals([code, stderr], [0, ""]);
    assertEquals((await unpacked.call("./bin/pagesift", ["--version"], folder)).code, 0);
  });

  await context.step("pagesift passes exit codes on", async () => {
    assertEquals((await unpacked.call(launcher, ["generate", "--tmp", "1"])).code, 2);
  });

  await context.step(
    "the npm package depends on this Deno, and contains program, model, CPU library and licences",
    async () => {
      const archive = join(place, "dist", `pagesift-${config.version}.tgz`);
      const manifest = await run("tar", ["-xzOf", archive, "package/package.json"]);
      const { name, version, bin, dependencies } = JSON.parse(manifest.stdout);
      assertEquals([name, version, bin.pagesift], ["pagesift", config.version, "bin/pagesift"]);
      assertEquals(dependencies, { deno: Deno.version.deno });
      const files = (await run("tar", ["-tzf", archive])).stdout.split("\n");
      const parts = ["app/pagesift.js", "build/cpu/libpagesift_cpu.so", "models/default/config.json", "pagesift.1"];
      const expected = [...parts, "bin/pagesift", "LICENSE", "THIRD_PARTY_LICENSES"];
      assertEquals(expected.filter((path) => !files.includes(`package/${path}`)), []);
    },
  );

  await context.step("pagesift leaves nothing behind", () => {
    assertEquals([...Deno.readDirSync(place)].map(({ name }) => name).sort(), before);
  });
});
