/** Folders as archives: the same bytes from the same files, whoever packs them and whenever. */
import { basename, dirname, join } from "@std/path";
import { BuildError, tryRun } from "./native_library.ts";

/** Older times look like an error to some programs. */
const MTIME = "2000-01-01 00:00:00Z";

/** Paths of the files under a folder, relative to it, sorted. */
export function listFiles(folder: string, prefix = ""): string[] {
  return [...Deno.readDirSync(join(folder, prefix))].flatMap((entry) => {
    const path = prefix === "" ? entry.name : `${prefix}/${entry.name}`;
    return entry.isDirectory ? listFiles(folder, path) : [path];
  }).sort();
}

/** Lines as `sha256sum` writes and checks them. */
export async function checksums(folder: string): Promise<string> {
  const lines: string[] = [];
  for (const path of listFiles(folder)) {
    const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(join(folder, path)));
    lines.push(`${new Uint8Array(digest).toHex()}  ${path}\n`);
  }
  return lines.join("");
}

/** Packs a folder, its own name included. @throws {BuildError} */
export async function packFolder(folder: string, archive: string): Promise<void> {
  const temporary = `${archive}.${Deno.pid}.tmp`;
  const fixed = ["--sort=name", `--mtime=${MTIME}`, "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"];
  const args = [...fixed, "--format=gnu", "-I", "gzip -n", "-cf", temporary, "-C", dirname(folder), basename(folder)];
  const made = await tryRun("tar", args);
  if (!made?.ok) throw new BuildError(`tar could not pack ${archive}: ${made?.stderr.trim() ?? "there is no tar"}`);
  Deno.renameSync(temporary, archive);
}
