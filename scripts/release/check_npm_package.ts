/**
 * Installs the npm packages of `deno task package` as a user with Node only would, and runs them. npm fetches the runtime from its
 * registry, into an empty cache.
 *
 *     deno run -A scripts/release/check_npm_package.ts [FOLDER]
 *
 * FOLDER contains the packages; default: dist/.
 */
import { join, resolve } from "@std/path";
import config from "../../deno.json" with { type: "json" };
import { log, print } from "../output.ts";
import { CUDA_PACKAGE } from "./launcher.ts";
import { BuildError, modified, ROOT } from "./native_library.ts";

/** What the machine has besides Node. */
const TOOLS = ["sh", "dirname", "readlink", "node", "npm"];
/** Settings of this machine's network that npm requires. */
const NETWORK = /^(npm_config_.*|https?_proxy|no_proxy|node_extra_ca_certs|ssl_cert_file|ssl_cert_dir)$/i;
const CACHE = "cache";

interface Result {
  code: number;
  signal: string | null;
  stdout: string;
  stderr: string;
}

/** A machine with Node and basic tools: an empty home, cache and prefix. */
class Machine implements AsyncDisposable {
  readonly #env: Record<string, string>;

  private constructor(readonly folder: string) {
    const network = Object.entries(Deno.env.toObject()).filter(([name]) => NETWORK.test(name));
    this.#env = { ...Object.fromEntries(network), PATH: join(folder, "tools"), HOME: folder, NO_COLOR: "1" };
  }

  static async make(): Promise<Machine> {
    const folder = await Deno.makeTempDir({ prefix: "node only " });
    await Deno.mkdir(join(folder, "tools"));
    for (const name of TOOLS) await Deno.symlink(await findTool(name), join(folder, "tools", name));
    return new Machine(folder);
  }

  start(command: string, args: readonly string[]): Deno.ChildProcess {
    const streams = { stdin: "null", stdout: "piped", stderr: "piped" } as const;
    return new Deno.Command(command, { args: [...args], cwd: this.folder, clearEnv: true, env: this.#env, ...streams })
      .spawn();
  }

  async run(command: string, args: readonly string[]): Promise<Result> {
    const { code, signal, stdout, stderr } = await this.start(command, args).output();
    return { code, signal, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
  }

  /** Installs packages globally into a prefix and gives the path of the program. */
  async install(prefix: string, packages: readonly string[], flags: readonly string[] = []): Promise<string> {
    const folders = ["--prefix", join(this.folder, prefix), "--cache", join(this.folder, CACHE)];
    const npm = join(this.folder, "tools", "npm");
    const result = await this.run(npm, ["install", "-g", ...folders, ...flags, ...packages]);
    expect("npm install ends with 0", result.code === 0, result);
    return join(this.folder, prefix, "bin", "pagesift");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}

async function findTool(name: string): Promise<string> {
  const { stdout } = await new Deno.Command("sh", { args: ["-c", `command -v ${name}`] }).output();
  const path = new TextDecoder().decode(stdout).trim();
  if (path === "") throw new BuildError(`${name} is not installed`);
  return path;
}

function expect(what: string, holds: boolean, found: unknown): void {
  if (!holds) throw new BuildError(`failed: ${what}; found ${JSON.stringify(found)}`);
  print(`ok: ${what}`);
}

async function checkGenerate(machine: Machine, pagesift: string, how: string): Promise<void> {
  const result = await machine.run(pagesift, ["generate", "It was", "-n", "5", "--device", "cpu"]);
  expect(`pagesift generate prints text ${how}`, result.code === 0 && /^ \S.*\n$/.test(result.stdout), result);
}

/** Ctrl-C ends the program by the signal after it printed the text so far, as without the launcher. */
async function checkSignal(machine: Machine, pagesift: string): Promise<void> {
  const child = machine.start(pagesift, ["generate", "Once upon a time", "-n", "20000", "--device", "cpu"]);
  const stderr = new Response(child.stderr).text();
  let stdout = "";
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    if (stdout === "") child.kill("SIGINT");
    stdout += text;
  }
  const { signal } = await child.status;
  const found = { signal, stdout: stdout.slice(-80), stderr: await stderr };
  expect("pagesift dies by SIGINT after a complete line", signal === "SIGINT" && stdout.endsWith("\n"), found);
}

async function checkPackages(folder: string): Promise<void> {
  const program = join(folder, `pagesift-${config.version}.tgz`);
  const cuda = join(folder, `pagesift-cuda-linux-x64-${config.version}.tgz`);
  if (modified(program) === 0) throw new BuildError(`${program} is missing; run "deno task package"`);
  await using machine = await Machine.make();
  const pagesift = await machine.install("prefix", [program]);
  const version = await machine.run(pagesift, ["--version"]);
  expect("pagesift --version gives the version", version.stdout === `pagesift ${config.version}\n`, version);
  const manual = join(machine.folder, "prefix", "share", "man", "man1", "pagesift.1");
  expect("npm installs the manual page", modified(manual) > 0, manual);
  await checkGenerate(machine, pagesift, "from an empty prefix and cache");
  const usage = await machine.run(pagesift, ["generate", "--tmp", "1"]);
  expect("pagesift passes the exit code on", usage.code === 2, usage);
  await checkSignal(machine, pagesift);
  const withoutScripts = await machine.install("without-scripts", [program], ["--ignore-scripts"]);
  await checkGenerate(machine, withoutScripts, "where npm ran no install scripts");
  if (modified(cuda) === 0) return log(`check_npm_package: ${cuda} is missing, so ${CUDA_PACKAGE} is not checked`);
  const withCuda = await machine.install("with-cuda", [program, cuda]);
  const device = await machine.run(withCuda, ["generate", "It was", "-n", "1", "--device", "cuda"]);
  expect(`pagesift finds the library of ${CUDA_PACKAGE}`, !/library.* is missing/.test(device.stderr), device);
}

if (import.meta.main) {
  try {
    await checkPackages(resolve(Deno.args[0] ?? join(ROOT, "dist")));
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    log(`check_npm_package: ${error.message}`);
    Deno.exit(1);
  }
}
