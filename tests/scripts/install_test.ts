/** The tasks install and uninstall, on prefixes in temporary folders. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import config from "../../deno.json" with { type: "json" };
import { type Finished, runDeno } from "../support/process.ts";

const RELEASE = fromFileUrl(new URL("../../scripts/release/", import.meta.url));
const IGNORE = Deno.build.os === "windows";
const INSTALLED = [
  "bin/pagesift",
  "lib/pagesift/SHA256SUMS",
  "share/bash-completion/completions/pagesift",
  "share/fish/vendor_completions.d/pagesift.fish",
  "share/man/man1/pagesift.1",
  "share/zsh/site-functions/_pagesift",
];

/** A prefix whose name has a space. */
class Prefix implements AsyncDisposable {
  private constructor(readonly folder: string) {}

  static async make(): Promise<Prefix> {
    return new Prefix(await Deno.makeTempDir({ prefix: "my prefix " }));
  }

  install(env: Record<string, string> = {}): Promise<Finished> {
    return this.#run("install.ts", env);
  }

  uninstall(): Promise<Finished> {
    return this.#run("uninstall.ts", {});
  }

  #run(script: string, env: Record<string, string>): Promise<Finished> {
    return runDeno(["run", "-A", "--no-check", join(RELEASE, script), "--prefix", this.folder], env);
  }

  /** Runs a launcher without Deno on the PATH. */
  async call(launcher: string, args: readonly string[], cwd: string): Promise<Finished> {
    const env = { PATH: "/usr/bin:/bin", HOME: this.folder };
    const child = new Deno.Command(launcher, { args: [...args], cwd, clearEnv: true, env, stdin: "null" });
    const { code, stdout, stderr } = await child.output();
    return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
  }

  has(path: string): boolean {
    try {
      return Deno.lstatSync(join(this.folder, path)).isFile;
    } catch {
      return false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}

function test(name: string, use: (prefix: Prefix) => Promise<void>): void {
  Deno.test({
    name,
    ignore: IGNORE,
    fn: async () => {
      await using prefix = await Prefix.make();
      await use(prefix);
    },
  });
}

test("install writes the launcher, the manual page and completions, and says where", async (prefix) => {
  const { code, stdout, stderr } = await prefix.install();
  assertEquals(code, 0, stderr);
  assertStringIncludes(stdout, `Installed pagesift ${config.version} in ${prefix.folder}`);
  assertEquals(INSTALLED.filter((path) => !prefix.has(path)), []);
});

test("install says how the launcher gets on the PATH", async (prefix) => {
  const { stdout } = await prefix.install({ SHELL: "/bin/bash" });
  assertStringIncludes(stdout, `export PATH="${prefix.folder}/bin:$PATH"`);
});

test("install says nothing of a PATH that has the launcher's folder", async (prefix) => {
  const { stdout } = await prefix.install({ PATH: `${Deno.env.get("PATH")}:${prefix.folder}/bin` });
  assertEquals(stdout.includes("PATH"), false);
});

test("the installed launcher works through a symbolic link, without Deno on the PATH", async (prefix) => {
  await prefix.install();
  const link = join(prefix.folder, "link");
  await Deno.symlink("bin/pagesift", link);
  const { code, stdout, stderr } = await prefix.call(link, ["generate", "It was", "-n", "3", "--device", "cpu"], "/");
  assertEquals([code, stderr], [0, ""]);
  assertMatch(stdout, /^ \S.*\n$/);
});

test("install replaces an earlier installation", async (prefix) => {
  await prefix.install();
  assertEquals((await prefix.install()).code, 0);
});

test("install refuses to replace a file of the user's, and changes nothing", async (prefix) => {
  await Deno.mkdir(join(prefix.folder, "bin"));
  await Deno.writeTextFile(join(prefix.folder, "bin", "pagesift"), "mine");
  const { code, stderr } = await prefix.install();
  assertEquals(code, 1);
  assertMatch(stderr, /^install: .*bin\/pagesift exists.*--prefix\n$/);
  assertEquals([...Deno.readDirSync(prefix.folder)].map(({ name }) => name), ["bin"]);
  assertEquals(Deno.readTextFileSync(join(prefix.folder, "bin", "pagesift")), "mine");
});

test("uninstall removes every file that install wrote, and says so", async (prefix) => {
  await prefix.install();
  await Deno.writeTextFile(join(prefix.folder, "bin", "other"), "mine");
  const { code, stdout } = await prefix.uninstall();
  assertEquals(code, 0);
  assertMatch(stdout, /^Removed pagesift from .*: \d+ files\n$/);
  const left = await prefix.call("/usr/bin/find", [prefix.folder, "-type", "f"], "/");
  assertEquals(left.stdout, `${prefix.folder}/bin/other\n`);
});

test("uninstall refuses to remove a file that was changed, and removes nothing", async (prefix) => {
  await prefix.install();
  await Deno.writeTextFile(join(prefix.folder, "share/man/man1/pagesift.1"), "mine");
  const { code, stderr } = await prefix.uninstall();
  assertEquals(code, 1);
  assertMatch(stderr, /^uninstall: .*pagesift\.1 was changed.*\n$/);
  assertEquals(INSTALLED.filter((path) => !prefix.has(path)), []);
});

test("uninstall ends with 1 and one line where nothing is installed", async (prefix) => {
  const { code, stderr } = await prefix.uninstall();
  assertEquals(code, 1);
  assertMatch(stderr, /^uninstall: .*not installed.*--prefix.*\n$/);
});

test("install ends with 1 and one line for a prefix that cannot be made", async () => {
  const { code, stderr } = await runDeno(["run", "-A", join(RELEASE, "install.ts"), "--prefix", "/proc/none"]);
  assertEquals(code, 1);
  assertMatch(stderr, /^install: .*\/proc\/none.*\n$/);
});

test("install takes a relative --prefix from the folder where deno task was called", async (prefix) => {
  const args = ["run", "-A", join(RELEASE, "install.ts"), "--prefix", "here"];
  const { stdout } = await runDeno(args, { INIT_CWD: prefix.folder });
  assertStringIncludes(stdout, `in ${prefix.folder}/here`);
});

test("install without --prefix takes ~/.local", async (prefix) => {
  const env = { HOME: prefix.folder, DENO_DIR: await denoDir() };
  const { stdout } = await runDeno(["run", "-A", join(RELEASE, "install.ts")], env);
  assertStringIncludes(stdout, `in ${prefix.folder}/.local`);
});

/** The cache of this Deno, which lies under HOME by default. */
async function denoDir(): Promise<string> {
  return JSON.parse((await runDeno(["info", "--json"])).stdout).denoDir;
}
