/**
 * Packs all that a machine without Deno, compiler or CUDA toolkit needs into `dist/pagesift-<version>-<system>.tar.gz`.
 *
 *     deno run -A scripts/release/package.ts [--cpu-only] [--output FOLDER]
 *
 * The libraries are those that `deno task build` made; `--cpu-only` leaves the CUDA library out.
 */
import { parseArgs } from "@std/cli/parse-args";
import { basename, dirname, join, resolve } from "@std/path";
import config from "../../deno.json" with { type: "json" };
import { log, print } from "../output.ts";
import { BuildError, modified, ROOT, tryRun } from "./native_library.ts";
import { thirdPartyLicences } from "./notices.ts";
import { libraryPath } from "./toolchain.ts";

/** Where the program looks for libraries and models, seen from the bundle: as in the source tree, one folder up. */
const BUNDLE = "app/pagesift.js";
const RUNTIME = "runtime/deno";
const MODEL = "models/default";

/**
 * Deno keeps caches in a folder of the user's; this one leaves no trace, so DENO_DIR is a place where nothing can be written. `--allow-run` is
 * for the signal that the program sends itself to end by Ctrl-C, and net and write are for models from the Hub.
 */
const LAUNCHER = `#!/bin/sh
# Starts Pagesift from the folder of this file, wherever it is called from and through symbolic links.
set -eu
self=$0
while [ -h "$self" ]; do
  target=$(readlink "$self")
  case $target in
    /*) self=$target ;;
    *) self=$(dirname "$self")/$target ;;
  esac
done
root=$(CDPATH='' cd "$(dirname "$self")" && pwd -P)
DENO_DIR=/dev/null/none
DENO_NO_UPDATE_CHECK=1
export DENO_DIR DENO_NO_UPDATE_CHECK
exec "$root/${RUNTIME}" run --quiet --no-config --no-lock --no-npm --no-remote --no-code-cache --no-prompt \\
  --allow-read --allow-write --allow-env --allow-net --allow-ffi --allow-run "$root/${BUNDLE}" "$@"
`;

/** Older times look like an error to some programs. */
const MTIME = "2000-01-01 00:00:00Z";

interface Options {
  cpuOnly: boolean;
  output: string;
}

/** `linux-x64` */
function systemName(): string {
  return `${Deno.build.os}-${Deno.build.arch === "x86_64" ? "x64" : "arm64"}`;
}

/** One script of the program and all that it imports; names of its parts say where each came from, but not on whose machine. */
async function bundle(target: string): Promise<void> {
  const temporary = `${target}.tmp`;
  const args = ["bundle", "--quiet", "--platform", "deno", "-o", temporary, join(ROOT, "cli", "main.ts")];
  const made = await tryRun(Deno.execPath(), args);
  if (!made?.ok) throw new BuildError(`deno bundle failed: ${made?.stderr.trim()}`);
  const text = await Deno.readTextFile(temporary);
  await Deno.writeTextFile(target, text.replaceAll(/[^\s"]*\/npm\/[^/\s"]+\/(?=deno-std\/|@huggingface\/)/g, "npm/"));
  await Deno.remove(temporary);
}

async function copy(source: string, target: string, mode = 0o644): Promise<void> {
  await Deno.mkdir(dirname(target), { recursive: true });
  await Deno.copyFile(source, target);
  await Deno.chmod(target, mode);
}

async function copyModel(folder: string): Promise<void> {
  for await (const { name, isFile } of Deno.readDir(join(ROOT, MODEL))) {
    if (isFile && !name.startsWith(".")) await copy(join(ROOT, MODEL, name), join(folder, MODEL, name));
  }
}

/** Paths of the files under a folder, relative to it, sorted. */
function listFiles(folder: string, prefix = ""): string[] {
  return [...Deno.readDirSync(join(folder, prefix))].flatMap((entry) => {
    const path = prefix === "" ? entry.name : `${prefix}/${entry.name}`;
    return entry.isDirectory ? listFiles(folder, path) : [path];
  }).sort();
}

/** Lines as `sha256sum` writes and checks them. */
async function checksums(folder: string): Promise<string> {
  const lines: string[] = [];
  for (const path of listFiles(folder)) {
    const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(join(folder, path)));
    lines.push(`${new Uint8Array(digest).toHex()}  ${path}\n`);
  }
  return lines.join("");
}

/** Packs a folder, its own name included. @throws {BuildError} */
async function packFolder(folder: string, archive: string): Promise<void> {
  const temporary = `${archive}.${Deno.pid}.tmp`;
  const fixed = ["--sort=name", `--mtime=${MTIME}`, "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"];
  const args = [...fixed, "--format=gnu", "-I", "gzip -n", "-cf", temporary, "-C", dirname(folder), basename(folder)];
  const made = await tryRun("tar", args);
  if (!made?.ok) throw new BuildError(`tar could not pack ${archive}: ${made?.stderr.trim() ?? "there is no tar"}`);
  Deno.renameSync(temporary, archive);
}

/** Lays out the folder that is packed. */
async function stage(folder: string, { cpuOnly }: Options): Promise<void> {
  await Deno.mkdir(join(folder, dirname(BUNDLE)), { recursive: true });
  await bundle(join(folder, BUNDLE));
  await copy(Deno.execPath(), join(folder, RUNTIME), 0o755);
  for (const kind of cpuOnly ? ["cpu"] as const : ["cpu", "cuda"] as const) {
    const library = libraryPath(kind);
    await copy(library, join(folder, library.slice(ROOT.length)));
  }
  await copyModel(folder);
  await copy(join(ROOT, "LICENSE"), join(folder, "LICENSE"));
  await Deno.writeTextFile(join(folder, "THIRD_PARTY_LICENSES"), thirdPartyLicences(!cpuOnly));
  await Deno.writeTextFile(join(folder, "pagesift"), LAUNCHER);
  await Deno.chmod(join(folder, "pagesift"), 0o755);
  await Deno.writeTextFile(join(folder, "SHA256SUMS"), await checksums(folder));
}

function checkBuilt({ cpuOnly }: Options): void {
  if (modified(libraryPath("cpu")) === 0) throw new BuildError('There is no CPU library; run "deno task build"');
  if (cpuOnly) return;
  if (modified(libraryPath("cuda")) === 0) {
    throw new BuildError('There is no CUDA library; run "deno task build" where nvcc is, or give --cpu-only');
  }
  if (Deno.env.get("PAGESIFT_CUDA_ARCHS")) {
    throw new BuildError("PAGESIFT_CUDA_ARCHS is set, and a package is for all GPUs; unset it, or give --cpu-only");
  }
}

async function makePackage(options: Options): Promise<string> {
  checkBuilt(options);
  const name = `pagesift-${config.version}-${systemName()}`;
  await Deno.mkdir(options.output, { recursive: true });
  const place = await Deno.makeTempDir({ dir: options.output, prefix: "stage-" });
  try {
    await stage(join(place, name), options);
    const archive = join(options.output, `${name}.tar.gz`);
    await packFolder(join(place, name), archive);
    return archive;
  } finally {
    await Deno.remove(place, { recursive: true });
  }
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, { boolean: ["cpu-only"], string: ["output"] });
  const output = resolve(String(flags["output"] ?? join(ROOT, "dist")));
  const archive = await makePackage({ cpuOnly: Boolean(flags["cpu-only"]), output });
  const megabytes = (Deno.statSync(archive).size / 1e6).toFixed(1);
  const shown = output === join(ROOT, "dist") ? join("dist", basename(archive)) : archive;
  print(`${shown} (${megabytes} MB)`);
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    log(`package: ${error.message}`);
    Deno.exit(1);
  }
}
