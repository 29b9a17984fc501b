/**
 * The tests of operations and models against the CUDA library. Without a device they are counted and skipped.
 *
 * All files run in one process and share one GPU; `DENO_JOBS` sets how many run at once. Further arguments are passed to `deno test`.
 */
import { runMain, whyNoGpu } from "./gpu.ts";
import { print } from "../output.ts";
import { countLine, runTests } from "./test_run.ts";

const FOLDERS = ["tests/kernels", "tests/ffi", "tests/engine", "tests/inspect"];
const JOBS = "4";

async function main(): Promise<number> {
  const env = { PAGESIFT_TEST_DEVICE: "cuda", DENO_JOBS: Deno.env.get("DENO_JOBS") || JOBS };
  const reason = whyNoGpu();
  if (reason !== undefined) {
    const none = await runTests({ args: ["--no-check", "--filter", "/^$/", ...FOLDERS], env, failuresOnly: true });
    print(`gpu: ${none.counts.skipped} tests skipped: ${reason}`);
    print(countLine(none.counts));
    return none.success ? 0 : 1;
  }
  const { success, counts } = await runTests({ args: ["--parallel", ...Deno.args, ...FOLDERS], env });
  print(countLine(counts));
  return success ? 0 : 1;
}

if (import.meta.main) await runMain("gpu", main);
