/**
 * Installs the program under a prefix, as `make install` does: `bin/pagesift`, the program with its runtime in `lib/pagesift`, the manual
 * page and completions in `share`. The installation needs neither this checkout nor Deno afterwards.
 *
 *     deno run -A scripts/release/install.ts [--prefix DIR]
 *
 * It replaces an earlier installation, and never a file that it did not write.
 */
import { dirname, join } from "@std/path";
import config from "../../deno.json" with { type: "json" };
import { print } from "../output.ts";
import { PROGRAM } from "./launcher.ts";
import { BuildError, modified } from "./native_library.ts";
import { exists, type Installed, isUnchanged, readManifest, removeEmptyFolders, runTask } from "./prefix.ts";
import { MANIFEST, stagePrefix } from "./stage.ts";
import { libraryPath } from "./toolchain.ts";

async function install(prefix: string): Promise<void> {
  const cuda = modified(libraryPath("cuda")) > 0;
  Deno.mkdirSync(prefix, { recursive: true });
  const staged = await Deno.makeTempDir({ dir: prefix, prefix: ".pagesift-" });
  try {
    await stagePrefix(staged, cuda ? ["cpu", "cuda"] : ["cpu"]);
    const files = [...(readManifest(staged) ?? []).map(({ path }) => path), MANIFEST];
    const old = readManifest(prefix) ?? [];
    for (const path of files) await checkTarget(prefix, path, old);
    for (const path of files) {
      Deno.mkdirSync(dirname(join(prefix, path)), { recursive: true });
      Deno.renameSync(join(staged, path), join(prefix, path));
    }
    for (const file of old) {
      if (!files.includes(file.path) && exists(join(prefix, file.path)) && await isUnchanged(prefix, file)) {
        Deno.removeSync(join(prefix, file.path));
      }
    }
    removeEmptyFolders(join(prefix, PROGRAM));
  } finally {
    await Deno.remove(staged, { recursive: true });
  }
  print(
    `Installed pagesift ${config.version} in ${prefix}, with the ${cuda ? "CPU and CUDA libraries" : "CPU library"}:`,
  );
  print("  bin/pagesift   launcher");
  print("  lib/pagesift   program, runtime, libraries and model");
  print("  share          manual page, completions for bash, zsh and fish");
  showPath(join(prefix, "bin"));
}

/** @throws {BuildError} if there is a file that an earlier installation did not write */
async function checkTarget(prefix: string, path: string, old: readonly Installed[]): Promise<void> {
  if (!exists(join(prefix, path)) || path === MANIFEST && old.length > 0) return;
  const known = old.find((file) => file.path === path);
  if (known !== undefined && await isUnchanged(prefix, known)) return;
  throw new BuildError(
    `${join(prefix, path)} exists, and this installer did not write it; remove it, or pass another --prefix`,
  );
}

/** Says how the launcher's folder gets on the PATH, unless it is there. */
function showPath(folder: string): void {
  if ((Deno.env.get("PATH") ?? "").split(":").includes(folder)) return;
  const shell = (Deno.env.get("SHELL") ?? "").split("/").at(-1);
  if (shell === "fish") {
    print(`${folder} is not on the PATH. Add it with this command:`);
    return print(`  fish_add_path "${folder}"`);
  }
  print(
    `${folder} is not on the PATH. Add this line to ${
      shell === "zsh" ? "~/.zshrc" : "~/.profile"
    }, then open a new shell:`,
  );
  print(`  export PATH="${folder}:$PATH"`);
}

if (import.meta.main) await runTask("install", install);
