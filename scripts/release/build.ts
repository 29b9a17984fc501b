/**
 * Builds the native libraries into `build/`: only what changed, and nothing is printed when nothing did. All progress goes to stderr,
 * because `deno task pagesift` pipes its stdout to the user.
 *
 *     deno run -A scripts/release/build.ts [all|here|cpu|cuda]
 *
 * `all` is the CPU library, and the CUDA library where nvcc exists; `here` leaves the CUDA library out on machines without an NVIDIA
 * GPU, `cuda` builds it alone. The CPU library needs a C++17 compiler: `$CXX`, else `g++`, else `clang++`. The CUDA library also
 * needs the CUDA toolkit, 13 or newer: `$NVCC`, else `nvcc`. `PAGESIFT_CUDA_ARCHS=90a` builds for fewer GPUs than all, and sooner.
 */
import { log } from "../output.ts";
import { BuildError, buildLibrary } from "./native_library.ts";
import { cpuPlan, cudaPlan, findNvcc, hasNvidiaDevice } from "./toolchain.ts";

const CHOICES = ["all", "here", "cpu", "cuda"];

async function build(choice: string): Promise<void> {
  if (!CHOICES.includes(choice)) throw new BuildError(`Unknown choice "${choice}", wanted ${CHOICES.join(", ")}`);
  const nvcc = choice === "cpu" ? undefined : findNvcc();
  if (choice === "cuda" && !nvcc) {
    throw new BuildError("No nvcc found; install the CUDA toolkit, or set NVCC to where it is");
  }
  if (choice !== "cuda") await buildLibrary(cpuPlan());
  if (nvcc && (choice !== "here" || hasNvidiaDevice())) await buildLibrary(cudaPlan(nvcc));
}

if (import.meta.main) {
  try {
    await build(Deno.args[0] ?? "all");
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    log(`build: ${error.message}`);
    Deno.exit(1);
  }
}
