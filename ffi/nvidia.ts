/** Whether this machine has an NVIDIA GPU, even one that CUDA cannot use. */

/** Files of the NVIDIA driver on a machine with a GPU: on Linux, and on Linux under Windows. */
const TRACES = ["/dev/nvidiactl", "/dev/nvidia0", "/proc/driver/nvidia/version", "/usr/lib/wsl/lib/libcuda.so.1"];
const EXISTS = 0; // F_OK

/** False if it cannot be determined, or if the user hides all GPUs from CUDA. */
export function hasNvidiaGpu(): boolean {
  if (Deno.build.os !== "linux" || /^(-1|)$/.test(Deno.env.get("CUDA_VISIBLE_DEVICES") ?? "all")) return false;
  return anyExists(TRACES);
}

/** Calls the C library, because Deno only opens `/dev` and `/proc` to programs with all permissions. */
export function anyExists(paths: readonly string[]): boolean {
  const library = openLibc();
  if (library === undefined) return false;
  const exists = (path: string) => library.symbols.access(new TextEncoder().encode(`${path}\0`), EXISTS) === 0;
  const found = paths.some(exists);
  library.close();
  return found;
}

type Libc = Deno.DynamicLibrary<{ access: { parameters: ["buffer", "i32"]; result: "i32" } }>;

/** Undefined if it has another name or cannot be opened. */
function openLibc(): Libc | undefined {
  try {
    return Deno.dlopen("libc.so.6", { access: { parameters: ["buffer", "i32"], result: "i32" } });
  } catch {
    return undefined;
  }
}
