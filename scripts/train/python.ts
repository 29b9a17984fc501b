/** Finds a Python that can run the training tests, and runs them. */
import { join } from "@std/path";
import { ROOT } from "../release/native_library.ts";
import type { Counts } from "../gate/test_run.ts";

/** The environment that `deno task test:train` creates. */
export const VENV = join(ROOT, "build", "train-venv");
const NEEDED = ["torch", "transformers", "tokenizers", "safetensors", "numpy"];

function run(python: string, args: string[]): Deno.CommandOutput | undefined {
  try {
    return new Deno.Command(python, {
      args,
      cwd: ROOT,
      env: { PYTHONPATH: join(ROOT, "scripts"), OMP_NUM_THREADS: "1", PYTHONDONTWRITEBYTECODE: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).outputSync();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** The first of `$PAGESIFT_TRAIN_PYTHON`, the task's environment and `python3` that has all packages. */
export function findPython(): string | undefined {
  const find = `import importlib.util as u, sys; sys.exit(not all(u.find_spec(n) for n in ${JSON.stringify(NEEDED)}))`;
  const named = Deno.env.get("PAGESIFT_TRAIN_PYTHON");
  const places = [...named ? [named] : [], join(VENV, "bin", "python"), "python3"];
  return places.find((python) => run(python, ["-c", find])?.success);
}

/** Runs all of `tests/train`; `text` is the output of unittest. */
export function runTrainTests(python: string): { success: boolean; counts: Counts; text: string } {
  const result = run(python, ["-W", "ignore", "-m", "unittest", "discover", "-v", "-s", "tests/train"]);
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
