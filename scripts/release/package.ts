/**
 * Packs the program for machines without Deno, compiler or CUDA toolkit: an archive that runs where it is unpacked, and npm packages.
 *
 *     deno run -A scripts/release/package.ts [--cpu-only] [--output FOLDER]
 *
 * The libraries are those that `deno task build` built; `--cpu-only` leaves the CUDA library out.
 */
import { parseArgs } from "@std/cli/parse-args";
import { basename, join, resolve } from "@std/path";
import config from "../../deno.json" with { type: "json" };
import { log, print } from "../output.ts";
import { BuildError, modified, ROOT } from "./native_library.ts";
import { packCuda, packProgram } from "./npm_package.ts";
import { packFolder, stagePrefix } from "./stage.ts";
import { libraryPath } from "./toolchain.ts";

interface Options {
  cpuOnly: boolean;
  output: string;
}

/** `linux-x64` */
function systemName(): string {
  return `${Deno.build.os}-${Deno.build.arch === "x86_64" ? "x64" : "arm64"}`;
}

function checkBuilt({ cpuOnly }: Options): void {
  if (modified(libraryPath("cpu")) === 0) throw new BuildError('The CPU library is missing; run "deno task build"');
  if (cpuOnly) return;
  if (modified(libraryPath("cuda")) === 0) {
    throw new BuildError(
      'The CUDA library is missing; run "deno task build" where nvcc is installed, or pass --cpu-only',
    );
  }
  if (Deno.env.get("PAGESIFT_CUDA_ARCHS")) {
    throw new BuildError("PAGESIFT_CUDA_ARCHS is set, but a package is for all GPUs; unset it, or pass --cpu-only");
  }
}

async function packArchive({ cpuOnly, output }: Options): Promise<string> {
  const name = `pagesift-${config.version}-${systemName()}`;
  const place = await Deno.makeTempDir({ dir: output, prefix: "stage-" });
  try {
    await stagePrefix(join(place, name), cpuOnly ? ["cpu"] : ["cpu", "cuda"]);
    const archive = join(output, `${name}.tar.gz`);
    await packFolder(join(place, name), archive);
    return archive;
  } finally {
    await Deno.remove(place, { recursive: true });
  }
}

function show(file: string): void {
  const megabytes = (Deno.statSync(file).size / 1e6).toFixed(1);
  const shown = file.startsWith(join(ROOT, "dist")) ? join("dist", basename(file)) : file;
  print(`${shown} (${megabytes} MB)`);
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, { boolean: ["cpu-only"], string: ["output"] });
  const output = resolve(String(flags["output"] ?? join(ROOT, "dist")));
  const options = { cpuOnly: Boolean(flags["cpu-only"]), output };
  checkBuilt(options);
  await Deno.mkdir(options.output, { recursive: true });
  show(await packArchive(options));
  if (systemName() !== "linux-x64") return log("package: npm packages are written on linux-x64 only");
  show(await packProgram(options.output));
  if (!options.cpuOnly) show(await packCuda(options.output));
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
