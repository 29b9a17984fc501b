/**
 * llama.cpp from npm: its prebuilt libraries, the headers of the same release, and a shim compiled against both. Fetched on first use
 * into `build/`, never a dependency of the program.
 */
import { dirname, join, relative } from "@std/path";
import { log } from "../../output.ts";
import { modified, ROOT, tryRun } from "../../release/native_library.ts";

/** The npm package, which determines the release of llama.cpp. */
export const PACKAGE_VERSION = "3.22.1";

/** Which of its libraries is used. */
export type Build = "cpu" | "cuda";

/** The installed files. */
export interface Installed {
  /** The compiled shim. */
  shim: string;
  /** Folder of llama.cpp's libraries. */
  libraries: string;
  /** Release of llama.cpp. */
  release: string;
}

const SHIM_SOURCE = new URL("shim.cpp", import.meta.url);
const HEADER_FOLDERS = ["include", join("ggml", "include")];

export function installFolder(build: Build): string {
  return join(ROOT, "build", "peers", `llama_cpp_${build}`);
}

/** Name of the prebuilt libraries for a machine; undefined if there are none. */
export function platformName(build: Build, os: string, arch: string): string | undefined {
  const cpu = { x86_64: "x64", aarch64: "arm64" }[arch];
  if (os !== "linux" || !cpu || (build === "cuda" && cpu !== "x64")) return undefined;
  return build === "cuda" ? `linux-${cpu}-cuda` : `linux-${cpu}`;
}

async function runOrFail(command: string, args: readonly string[], cwd: string): Promise<void> {
  const output = await new Deno.Command(command, { args: [...args], cwd, stdin: "null", stdout: "null" }).output();
  if (!output.success) throw new Error(`"${command} ${args.slice(0, 2).join(" ")}" failed in ${cwd}`);
}

/** Installs the library of one kind only: with all of them, the package is about 700 MB. */
async function fetchPackages(folder: string, platform: string): Promise<void> {
  log(`Installing node-llama-cpp ${PACKAGE_VERSION} (${platform}) into ${folder}`);
  Deno.mkdirSync(folder, { recursive: true });
  Deno.writeTextFileSync(join(folder, "package.json"), '{ "private": true }\n');
  const flags = ["--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact"];
  const packages = ["node-llama-cpp", `@node-llama-cpp/${platform}`].map((name) => `${name}@${PACKAGE_VERSION}`);
  await runOrFail("npm", ["install", ...flags, ...packages], folder);
}

/** The package contains llama.cpp as a git bundle; only headers are extracted. */
async function unpackHeaders(folder: string, source: string): Promise<void> {
  const bundle = join(folder, "node_modules", "node-llama-cpp", "llama", "gitRelease.bundle");
  await runOrFail("git", ["clone", "--quiet", "--no-checkout", bundle, source], folder);
  await runOrFail("git", ["checkout", "--quiet", "HEAD", "--", ...HEADER_FOLDERS], source);
}

async function compileShim(source: string, libraries: string, shim: string): Promise<void> {
  const wanted = /^lib(llama|ggml)(\.\w+)?\.v|^lib(llama|ggml|ggml-base)\.so$/;
  const found = [...Deno.readDirSync(libraries)].map(({ name }) => name).filter((name) => wanted.test(name));
  const args = [
    ...["-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", SHIM_SOURCE.pathname, "-o", shim],
    ...HEADER_FOLDERS.flatMap((path) => ["-I", join(source, path)]),
    ...found.map((name) => join(libraries, name)),
    `-Wl,-rpath,$ORIGIN/${relative(dirname(shim), libraries)}`,
  ];
  const made = await tryRun(Deno.env.get("CXX") ?? "g++", args);
  if (!made?.ok) throw new Error(`The shim for llama.cpp cannot be compiled: ${made?.stderr ?? "there is no g++"}`);
}

function exists(path: string): boolean {
  return modified(path) > 0;
}

/** The file name of the shim contains the versions of both sides. */
async function shimPath(folder: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(SHIM_SOURCE));
  return join(folder, `shim_${PACKAGE_VERSION}_${new Uint8Array(digest).toHex().slice(0, 12)}.so`);
}

/** Whether everything is fetched and compiled. */
export async function isInstalled(build: Build): Promise<boolean> {
  return exists(await shimPath(installFolder(build)));
}

/** Fetches and compiles missing files. @throws {Error} without npm, git or a C++ compiler, or on another platform */
export async function install(build: Build): Promise<Installed> {
  const platform = platformName(build, Deno.build.os, Deno.build.arch);
  if (!platform) {
    throw new Error(`No ${build} library of llama.cpp exists for ${Deno.build.os} ${Deno.build.arch}`);
  }
  const folder = installFolder(build);
  const modules = join(folder, "node_modules");
  const libraries = join(modules, "@node-llama-cpp", platform, "bins", platform);
  const shim = await shimPath(folder);
  if (!exists(shim)) {
    const source = join(folder, "llama.cpp");
    await fetchPackages(folder, platform);
    if (!exists(source)) await unpackHeaders(folder, source);
    await compileShim(source, libraries, shim);
  }
  const facts = JSON.parse(Deno.readTextFileSync(join(libraries, "_nlcBuildMetadata.json")));
  return { shim, libraries, release: String(facts.buildOptions.llamaCpp.release) };
}
