/** Runs tests that are written in Python. */
import { join } from "@std/path";
import { ROOT } from "../release/native_library.ts";
import type { Counts } from "./test_run.ts";

/** Runs Python in the root of the tree; undefined if there is no such Python. `path`: a folder of modules, from the root. */
export function runPython(python: string, args: string[], path = "scripts"): Deno.CommandOutput | undefined {
  try {
    return new Deno.Command(python, {
      args,
      cwd: ROOT,
      env: { PYTHONPATH: join(ROOT, path), OMP_NUM_THREADS: "1", PYTHONDONTWRITEBYTECODE: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).outputSync();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Runs all tests of a folder, which import modules from `path`; `text` is the output of unittest. */
export function runUnittest(
  python: string,
  folder: string,
  path: string,
): { success: boolean; counts: Counts; text: string } {
  const result = runPython(python, ["-W", "ignore", "-m", "unittest", "discover", "-v", "-s", folder], path);
  const text = new TextDecoder().decode(result?.stderr);
  return { success: result?.success ?? false, counts: countsOf(text), text };
}

/** Counts from the output of unittest; one failure if it did not finish. */
export function countsOf(text: string): Counts {
  const all = /^Ran (\d+) tests? in /m.exec(text);
  if (!all) return { passed: 0, failed: 1, skipped: 0 };
  const count = (what: string): number =>
    Number(new RegExp(`^(?:OK|FAILED) \\(.*\\b${what}=(\\d+)`, "m").exec(text)?.[1] ?? 0);
  const [failed, skipped] = [count("failures") + count("errors"), count("skipped")];
  return { passed: Number(all[1]) - failed - skipped, failed, skipped };
}
