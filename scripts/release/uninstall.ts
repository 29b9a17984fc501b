/**
 * Removes what `install.ts` wrote under a prefix.
 *
 *     deno run -A scripts/release/uninstall.ts [--prefix DIR]
 *
 * Removes nothing if a file was changed or replaced since. Folders outside `lib/pagesift` stay.
 */
import { join } from "@std/path";
import { print } from "../output.ts";
import { PROGRAM } from "./launcher.ts";
import { BuildError } from "./native_library.ts";
import { exists, isUnchanged, readManifest, removeEmptyFolders, runTask } from "./prefix.ts";
import { MANIFEST } from "./stage.ts";

async function uninstall(prefix: string): Promise<void> {
  const files = readManifest(prefix);
  if (files === undefined) {
    throw new BuildError(`pagesift is not installed in ${prefix}; pass the --prefix that it was installed with`);
  }
  const present = files.filter(({ path }) => exists(join(prefix, path)));
  for (const file of present) {
    if (await isUnchanged(prefix, file)) continue;
    const path = join(prefix, file.path);
    throw new BuildError(`${path} was changed since it was installed; move it away, then run uninstall again`);
  }
  for (const { path } of present) Deno.removeSync(join(prefix, path));
  Deno.removeSync(join(prefix, MANIFEST));
  removeEmptyFolders(join(prefix, PROGRAM));
  print(`Removed pagesift from ${prefix}: ${present.length + 1} files`);
}

if (import.meta.main) await runTask("uninstall", uninstall);
