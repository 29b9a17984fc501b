/** The npm packages: the program for machines that have Node only, and the CUDA library beside it. */
import { dirname, join } from "@std/path";
import config from "../../deno.json" with { type: "json" };
import { program } from "../../cli/program.ts";
import { CUDA_PACKAGE, NPM_LAUNCHER } from "./launcher.ts";
import { manPage } from "./man_page.ts";
import { copyFile, packFolder, stageLicences, stageProgram, writeText } from "./stage.ts";
import { libraryPath } from "./toolchain.ts";

const COMMON = {
  version: config.version,
  license: config.license,
  os: ["linux"],
  cpu: ["x64"],
  libc: ["glibc"],
};

/** Packs `pagesift-<version>.tgz` in a folder and gives its path. @throws {BuildError} */
export async function packProgram(output: string): Promise<string> {
  return await packNpm(output, `pagesift-${config.version}.tgz`, {
    ...{ name: "pagesift", description: program.summary, ...COMMON },
    bin: { pagesift: "bin/pagesift" },
    man: ["./pagesift.1"],
    engines: { node: ">=20" },
    dependencies: { deno: Deno.version.deno },
    optionalDependencies: { [CUDA_PACKAGE]: config.version },
  }, async (folder) => {
    await stageProgram(folder, ["program", "cpu"]);
    await writeText(join(folder, "bin", "pagesift"), NPM_LAUNCHER, 0o755);
    await writeText(join(folder, "pagesift.1"), manPage());
    await writeText(join(folder, "README.md"), README);
  });
}

/** Packs the CUDA library and gives the path of the package. @throws {BuildError} */
export async function packCuda(output: string): Promise<string> {
  return await packNpm(output, `pagesift-cuda-linux-x64-${config.version}.tgz`, {
    ...{ name: CUDA_PACKAGE, description: "The CUDA library of pagesift, for NVIDIA GPUs", ...COMMON },
  }, async (folder) => {
    await copyFile(libraryPath("cuda"), join(folder, "libpagesift_cuda.so"));
    await stageLicences(folder, ["cuda"]);
    await writeText(join(folder, "README.md"), CUDA_README);
  });
}

/** npm packages are archives of a folder named "package". */
async function packNpm(
  output: string,
  name: string,
  manifest: Readonly<Record<string, unknown>>,
  stage: (folder: string) => Promise<void>,
): Promise<string> {
  const place = await Deno.makeTempDir({ dir: output, prefix: "stage-" });
  try {
    const folder = join(place, "package");
    await stage(folder);
    await writeText(join(folder, "package.json"), JSON.stringify(manifest, null, 2) + "\n");
    const archive = join(output, name);
    await Deno.mkdir(dirname(archive), { recursive: true });
    await packFolder(folder, archive);
    return archive;
  } finally {
    await Deno.remove(place, { recursive: true });
  }
}

const README = `# pagesift

${program.summary}.

    npm install -g pagesift
    pagesift generate "Once upon a time" -n 60

The package contains the program, a small model and the CPU library for Linux on x64. The runtime is the npm package \`deno\`. On machines
with an NVIDIA GPU, \`${CUDA_PACKAGE}\` adds the CUDA library; it is found by itself.

\`pagesift --help\` lists the commands, \`man pagesift\` is the manual page.
`;

const CUDA_README = `# ${CUDA_PACKAGE}

The CUDA library of the npm package \`pagesift\`, which finds it by itself. It requires a driver for CUDA 13 and a GPU of compute
capability 8.0 or later.
`;
