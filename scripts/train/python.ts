/** Finds a Python that can run the training tests, and runs them. */
import { join } from "@std/path";
import { ROOT } from "../release/native_library.ts";
import { runPython, runUnittest } from "../gate/python_tests.ts";
import type { Counts } from "../gate/test_run.ts";

/** The environment that `deno task test:train` creates. */
export const VENV = join(ROOT, "build", "train-venv");
const NEEDED = ["torch", "transformers", "tokenizers", "safetensors", "numpy"];

/** The first of `$PAGESIFT_TRAIN_PYTHON`, the task's environment and `python3` that has all packages. */
export function findPython(): string | undefined {
  const find = `import importlib.util as u, sys; sys.exit(not all(u.find_spec(n) for n in ${JSON.stringify(NEEDED)}))`;
  const named = Deno.env.get("PAGESIFT_TRAIN_PYTHON");
  const places = [...named ? [named] : [], join(VENV, "bin", "python"), "python3"];
  return places.find((python) => runPython(python, ["-c", find])?.success);
}

/** Runs all of `tests/train`; `text` is the output of unittest. */
export function runTrainTests(python: string): { success: boolean; counts: Counts; text: string } {
  return runUnittest(python, "tests/train", "scripts");
}
