/** Checks the format of the C++ and CUDA sources with clang-format; `--write` formats them. */
import { join } from "@std/path";
import { ROOT } from "../release/native_library.ts";
import { log } from "../output.ts";
import { runPythonTool } from "./python_tools.ts";

const FOLDERS = ["csrc", "tests/native"];
const EXTENSIONS = /\.(cpp|cu|cuh|h)$/;

function sources(folder: string): string[] {
  return [...Deno.readDirSync(join(ROOT, folder))].flatMap(({ name, isDirectory }) => {
    const path = `${folder}/${name}`;
    if (isDirectory) return sources(path);
    return EXTENSIONS.test(name) ? [path] : [];
  }).sort();
}

if (import.meta.main) {
  const mode = Deno.args.includes("--write") ? ["-i"] : ["--dry-run", "--Werror"];
  if (!await runPythonTool("clang-format", [...mode, ...FOLDERS.flatMap(sources)])) {
    log("format_native: the files above are not formatted; run the command again with --write");
    Deno.exit(1);
  }
}
