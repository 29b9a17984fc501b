/** The compilers of the two libraries, and the flags they get. */
import { basename, dirname, join } from "@std/path";
import { BuildError, modified, objectFor, type Plan, ROOT, sourcesIn, tryRun, type Unit } from "./native_library.ts";

const COMMON_FLAGS = [
  ...["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-pthread"],
  ...["-Wall", "-Wextra", "-Wno-unknown-warning-option", "-Wno-psabi"],
  ...["-Wno-maybe-uninitialized", "-Wno-uninitialized"], // g++ 12 warns inside its own AVX-512 header
];
const AVX512_FLAGS = ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"];
/** What each file of one instruction set is compiled with, by processor; a file is left out where it has no entry. */
export const ISA_FLAGS: Readonly<Record<typeof Deno.build.arch, Readonly<Record<string, readonly string[]>>>> = {
  x86_64: {
    isa_portable: [],
    isa_avx2: ["-mavx2", "-mfma", "-mf16c"],
    isa_avx512: AVX512_FLAGS,
    isa_avx512vnni: [...AVX512_FLAGS, "-mavx512vnni"],
    isa_amx: [...AVX512_FLAGS, "-mavx512vnni", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
  },
  aarch64: {
    isa_portable: [],
    isa_neondot: ["-march=armv8.2-a+dotprod"],
    isa_neonbf16: ["-march=armv8.2-a+dotprod+bf16"],
  },
};
const CROSS_COMPILER = "aarch64-linux-gnu-g++";
/** The last one is also compiled to PTX, from which a driver makes code for GPUs that came later. */
const CUDA_ARCHS = "80,90a,100";
const CUDA_FLAGS = ["-std=c++17", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall", "-cudart", "static"];
/** What the archives bring stays inside, and what nobody calls stays out: parts of it want a newer C library than ours do. */
const LINKER_FLAGS = "-z,defs,--exclude-libs,ALL,--gc-sections";
const CUDA_LINK_FLAGS = ["-shared", "-cudart", "static", "-Xlinker", `-s,${LINKER_FLAGS}`];

/** A build whose mistakes are found while it runs. */
export type Sanitizer = "asan" | "tsan";
const SANITIZERS: Readonly<Record<Sanitizer, string>> = { asan: "address,undefined", tsan: "thread" };

/** Optimised less, so that a report names the lines; a finding of undefined behaviour ends the run as the others do. */
export function sanitizerFlags(sanitizer: Sanitizer): string[] {
  const checks = `-fsanitize=${SANITIZERS[sanitizer]}`;
  return [checks, "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1"];
}

/** Where the CPU library of a sanitizer is built. */
export function sanitizedLibrary(sanitizer: Sanitizer): string {
  return join(ROOT, "build", sanitizer, `libpagesift_cpu_${sanitizer}.so`);
}

/** Where the CPU library for arm64 is built on other processors. */
export const ARM64_LIBRARY = join(ROOT, "build", "arm64", "libpagesift_cpu.so");

/** Where a library is built. */
export function libraryPath(kind: "cpu" | "cuda"): string {
  return join(ROOT, "build", kind, `libpagesift_${kind}.${Deno.build.os === "darwin" ? "dylib" : "so"}`);
}

/** The first C++ compiler that answers: `$CXX`, else `g++`, else `clang++`. */
export async function findCompiler(): Promise<string> {
  const asked = Deno.env.get("CXX");
  const names = asked ? [asked] : ["g++", "clang++"];
  for (const name of names) if ((await tryRun(name, ["--version"]))?.ok) return name;
  throw new BuildError(
    `No C++ compiler found (${names.join(", ")}); install one, for example with "apt-get install g++" or ` +
      `"xcode-select --install", or set CXX`,
  );
}

/** The compiler for arm64: this machine's own where it is one, else Debian's cross compiler. */
export async function findCrossCompiler(): Promise<string> {
  if (Deno.build.arch === "aarch64") return await findCompiler();
  if ((await tryRun(CROSS_COMPILER, ["--version"]))?.ok) return CROSS_COMPILER;
  throw new BuildError(`There is no ${CROSS_COMPILER}; install it with "apt-get install g++-aarch64-linux-gnu"`);
}

/** `$NVCC`, else nvcc on the PATH, else where NVIDIA's installer puts it; undefined where there is none. */
export function findNvcc(): string | undefined {
  const asked = Deno.env.get("NVCC");
  if (asked && modified(asked) === 0) throw new BuildError(`NVCC is "${asked}", where no file is`);
  if (asked) return asked;
  const folders = (Deno.env.get("PATH") ?? "").split(":").filter((folder) => folder !== "");
  return [...folders, "/usr/local/cuda/bin"].map((folder) => join(folder, "nvcc")).find((path) => modified(path) > 0);
}

/** Whether this machine has an NVIDIA GPU that a program could use: the driver's device file, WSL's, or none. */
export function hasNvidiaDevice(): boolean {
  return ["/dev/nvidiactl", "/dev/dxg"].some((path) => modified(path) > 0);
}

/** Links the C++ runtime into the library where the compiler has it as an archive, so that any system's will do. */
async function runtimeFlags(compiler: string): Promise<string[]> {
  if (Deno.build.os !== "linux") return [];
  const found = await tryRun(compiler, ["-print-file-name=libstdc++.a"]);
  return found?.stdout.startsWith("/") ? ["-static-libgcc", "-static-libstdc++"] : [];
}

function cpuUnits(
  compiler: string,
  folder: string,
  { arch = Deno.build.arch, more = [] }: { arch?: typeof Deno.build.arch; more?: readonly string[] } = {},
): Unit[] {
  return ["csrc/api", "csrc/cpu"].flatMap((sources) => sourcesIn(sources, [".cpp"])).flatMap((source) => {
    const name = basename(source, ".cpp");
    const own = name.startsWith("isa_") ? ISA_FLAGS[arch][name] : [];
    if (own === undefined) return [];
    return [{ source, object: objectFor(source, folder), compiler, flags: [...COMMON_FLAGS, ...more, ...own] }];
  });
}

function inputs(...parts: readonly string[]): string[] {
  return parts.map((part) => join(ROOT, "csrc", part));
}

/** Files that both libraries are made of. */
const SHARED = ["api", "include", "backend.h", "group.h", "params.h", "sample_rules.h"];

function cpuPlanFor(title: string, library: string, arch: typeof Deno.build.arch, find: () => Promise<string>): Plan {
  return {
    ...{ title, library, note: "", inputs: inputs(...SHARED, "cpu") },
    stamp: JSON.stringify([Deno.env.get("CXX"), COMMON_FLAGS, ISA_FLAGS, LINKER_FLAGS]),
    prepare: async () => {
      const compiler = await find();
      const runtime = await runtimeFlags(compiler);
      const flags = ["-shared", "-pthread", ...runtime, ...runtime.length > 0 ? [`-Wl,${LINKER_FLAGS}`] : []];
      return {
        units: cpuUnits(compiler, dirname(library), { arch }),
        link: (objects, output) => ({ command: compiler, args: [...flags, ...objects, "-o", output] }),
      };
    },
  };
}

export function cpuPlan(): Plan {
  return cpuPlanFor("CPU library", libraryPath("cpu"), Deno.build.arch, findCompiler);
}

/** The CPU library for Linux on arm64, from any Linux with Debian's cross compiler. */
export function arm64Plan(): Plan {
  return cpuPlanFor("arm64 CPU library", ARM64_LIBRARY, "aarch64", findCrossCompiler);
}

/** The CPU library, checked while it runs. It brings no runtime of its own, since the sanitizer's must come first in the process. */
export function sanitizedPlan(sanitizer: Sanitizer): Plan {
  const library = sanitizedLibrary(sanitizer);
  const flags = sanitizerFlags(sanitizer);
  return {
    ...{ title: `CPU library for ${sanitizer}`, library, note: "", inputs: inputs(...SHARED, "cpu") },
    stamp: JSON.stringify([Deno.env.get("CXX"), COMMON_FLAGS, ISA_FLAGS, flags]),
    prepare: async () => {
      const compiler = await findCompiler();
      return {
        units: cpuUnits(compiler, dirname(library), { more: flags }),
        link: (objects, output) => ({
          command: compiler,
          args: ["-shared", "-pthread", ...flags, ...objects, "-o", output],
        }),
      };
    },
  };
}

/** `-gencode` for `80,90a,100`. */
export function archFlags(archs: readonly string[]): string[] {
  return archs.flatMap((arch, index) => {
    const isPortable = index === archs.length - 1 && /^\d+$/.test(arch);
    const code = isPortable ? `[sm_${arch},compute_${arch}]` : `sm_${arch}`;
    return ["-gencode", `arch=compute_${arch},code=${code}`];
  });
}

function readArchs(): string[] {
  const archs = (Deno.env.get("PAGESIFT_CUDA_ARCHS") || CUDA_ARCHS).split(",").map((arch) => arch.trim());
  const wrong = archs.find((arch) => !/^\d{2,3}[af]?$/.test(arch));
  if (wrong === undefined) return archs;
  throw new BuildError(`PAGESIFT_CUDA_ARCHS has "${wrong}", wanted numbers like ${CUDA_ARCHS}`);
}

/** nvcc takes several host flags as one argument. */
function forHost(flags: readonly string[]): string[] {
  return flags.length > 0 ? ["-Xcompiler", flags.join(",")] : [];
}

function cudaUnits(nvcc: string, compiler: string, flags: readonly string[]): Unit[] {
  const made = (source: string, by: string, how: readonly string[]): Unit => (
    { source, object: objectFor(source, join(ROOT, "build", "cuda")), compiler: by, flags: how }
  );
  return [
    ...["csrc/cuda/kernels", "csrc/cuda"].flatMap((folder) => sourcesIn(folder, [".cu", ".cpp"]))
      .map((source) => made(source, nvcc, flags)),
    ...sourcesIn("csrc/api", [".cpp"]).map((source) => made(source, compiler, COMMON_FLAGS)),
  ];
}

export function cudaPlan(nvcc: string): Plan {
  const archs = readArchs();
  const library = libraryPath("cuda");
  const flags = [...CUDA_FLAGS, ...archFlags(archs), "-I", join(ROOT, "csrc")];
  return {
    ...{ title: "CUDA library", library, inputs: inputs(...SHARED, "cuda") },
    note: ` for ${archs.map((arch) => `sm_${arch}`).join(", ")}; this can take minutes`,
    stamp: JSON.stringify([nvcc, Deno.env.get("CXX"), COMMON_FLAGS, flags, LINKER_FLAGS]),
    prepare: async () => {
      const compiler = await findCompiler();
      const runtime = forHost(await runtimeFlags(compiler));
      return {
        units: cudaUnits(nvcc, compiler, flags),
        link: (objects, output) => ({
          command: nvcc,
          args: [...CUDA_LINK_FLAGS, ...runtime, ...objects, "-o", output, "-ldl", "-lrt", "-lpthread"],
        }),
      };
    },
  };
}
