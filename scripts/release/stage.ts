/** Lays out the files of a release: the program's folder, and the prefix of an archive or an installation around it. */
import { basename, dirname, join } from "@std/path";
import { SHELLS } from "../../cli/completions/completions.ts";
import { program } from "../../cli/program.ts";
import { BUNDLE, LAUNCHER, PROGRAM, RUNTIME } from "./launcher.ts";
import { manPage } from "./man_page.ts";
import { BuildError, ROOT, tryRun } from "./native_library.ts";
import { type Part, thirdPartyLicences } from "./notices.ts";
import { libraryPath } from "./toolchain.ts";

const MODEL = "models/default";
const EXAMPLE = "examples/war_of_the_worlds.txt";

/** Where shells and man(1) look under a prefix. */
const SHELL_FILES: Readonly<Record<string, string>> = {
  bash: "share/bash-completion/completions/pagesift",
  zsh: "share/zsh/site-functions/_pagesift",
  fish: "share/fish/vendor_completions.d/pagesift.fish",
};
export const MAN_PAGE = "share/man/man1/pagesift.1";

/** Every file under the prefix with its checksum, as `sha256sum -c` reads it in the prefix. */
export const MANIFEST = `${PROGRAM}/SHA256SUMS`;

/**
 * Lays out the folder of the program without its runtime: bundle, model, example text, licences, and the libraries that `parts` names.
 *
 * @throws {BuildError}
 */
export async function stageProgram(folder: string, parts: readonly Part[]): Promise<void> {
  await bundle(join(folder, BUNDLE));
  for (const kind of ["cpu", "cuda"] as const) {
    const library = libraryPath(kind);
    if (parts.includes(kind)) await copyFile(library, join(folder, library.slice(ROOT.length)));
  }
  for await (const { name, isFile } of Deno.readDir(join(ROOT, MODEL))) {
    if (isFile && !name.startsWith(".")) await copyFile(join(ROOT, MODEL, name), join(folder, MODEL, name));
  }
  await copyFile(join(ROOT, EXAMPLE), join(folder, EXAMPLE));
  await stageLicences(folder, parts);
}

export async function stageLicences(folder: string, parts: readonly Part[]): Promise<void> {
  await copyFile(join(ROOT, "LICENSE"), join(folder, "LICENSE"));
  await writeText(join(folder, "THIRD_PARTY_LICENSES"), thirdPartyLicences(parts));
}

/** Lays out a prefix: launcher, program with this Deno as its runtime, manual page, completions and manifest. @throws {BuildError} */
export async function stagePrefix(prefix: string, libraries: readonly Part[]): Promise<void> {
  await stageProgram(join(prefix, PROGRAM), ["runtime", "program", ...libraries]);
  await copyFile(Deno.execPath(), join(prefix, PROGRAM, RUNTIME), 0o755);
  await writeText(join(prefix, "bin", "pagesift"), LAUNCHER, 0o755);
  await writeText(join(prefix, MAN_PAGE), manPage());
  for (const { name, script } of SHELLS) {
    const file = SHELL_FILES[name];
    if (file !== undefined) await writeText(join(prefix, file), script(program));
  }
  await writeText(join(prefix, MANIFEST), await checksums(prefix));
}

/** One script of the program and all its imports. Names of its parts say where each came from, but not on whose machine. */
async function bundle(target: string): Promise<void> {
  const temporary = `${target}.tmp`;
  await Deno.mkdir(dirname(target), { recursive: true });
  const args = ["bundle", "--quiet", "--platform", "deno", "-o", temporary, join(ROOT, "cli", "main.ts")];
  const made = await tryRun(Deno.execPath(), args);
  if (!made?.ok) throw new BuildError(`deno bundle failed: ${made?.stderr.trim()}`);
  const text = await Deno.readTextFile(temporary);
  await Deno.writeTextFile(target, text.replaceAll(/[^\s"]*\/npm\/[^/\s"]+\/(?=deno-std\/|@huggingface\/)/g, "npm/"));
  await Deno.remove(temporary);
}

export async function copyFile(source: string, target: string, mode = 0o644): Promise<void> {
  await Deno.mkdir(dirname(target), { recursive: true });
  await Deno.copyFile(source, target);
  await Deno.chmod(target, mode);
}

export async function writeText(target: string, text: string, mode = 0o644): Promise<void> {
  await Deno.mkdir(dirname(target), { recursive: true });
  await Deno.writeTextFile(target, text);
  await Deno.chmod(target, mode);
}

/** Paths of the files under a folder, relative to it, sorted. */
function listFiles(folder: string, prefix = ""): string[] {
  return [...Deno.readDirSync(join(folder, prefix))].flatMap((entry) => {
    const path = prefix === "" ? entry.name : `${prefix}/${entry.name}`;
    return entry.isDirectory ? listFiles(folder, path) : [path];
  }).sort();
}

async function checksums(folder: string): Promise<string> {
  const lines: string[] = [];
  for (const path of listFiles(folder)) lines.push(`${await sha256(join(folder, path))}  ${path}\n`);
  return lines.join("");
}

/** The checksum of a file, in hexadecimal digits. */
export async function sha256(path: string): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", await Deno.readFile(path))).toHex();
}

/** Older times look like an error to some programs. */
const MTIME = "2000-01-01 00:00:00Z";

/** Packs a folder, including its own name, so that equal files give equal archives. @throws {BuildError} */
export async function packFolder(folder: string, archive: string): Promise<void> {
  const temporary = `${archive}.${Deno.pid}.tmp`;
  const fixed = ["--sort=name", `--mtime=${MTIME}`, "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"];
  const args = [...fixed, "--format=gnu", "-I", "gzip -n", "-cf", temporary, "-C", dirname(folder), basename(folder)];
  const made = await tryRun("tar", args);
  if (!made?.ok) throw new BuildError(`tar cannot pack ${archive}: ${made?.stderr.trim() ?? "tar is not installed"}`);
  Deno.renameSync(temporary, archive);
}
