/** Runs the tests of `python/pagesift_ray` over a local Ray, in a separate environment, `build/ray-venv`. */
import { join } from "@std/path";
import { log, print } from "../output.ts";
import { ROOT } from "../release/native_library.ts";
import { runUnittest } from "./python_tests.ts";
import { pythonEnvironment } from "./python_tools.ts";
import { countLine } from "./test_run.ts";

/** The packages of `python/pyproject.toml`, with those of its extras. */
export function packagesOf(project: string): string[] {
  return [...project.matchAll(/"([\w-]+==[\w.]+)"/g)].map(([, name = ""]) => name).filter((name) =>
    !name.startsWith("hatchling")
  );
}

if (import.meta.main) {
  const packages = packagesOf(await Deno.readTextFile(join(ROOT, "python", "pyproject.toml")));
  const programs = await pythonEnvironment(join(ROOT, "build", "ray-venv"), packages);
  const { success, counts, text } = runUnittest(join(programs, "python"), "tests/ray", "python");
  if (!success) log(text);
  print(countLine(counts));
  if (!success) Deno.exit(1);
}
