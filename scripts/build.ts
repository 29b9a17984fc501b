/**
 * Builds the native library into `build/`: only what changed, and nothing is printed when nothing did. All progress goes to stderr,
 * because `deno task pagesift` pipes its stdout to the user.
 *
 * A C++17 compiler is all it needs: `$CXX`, else `g++`, else `clang++`.
 */
import { basename, fromFileUrl, join } from "@std/path";

const ROOT = fromFileUrl(new URL("..", import.meta.url));
const BUILD = join(ROOT, "build", "cpu");
const COMMON_FLAGS = [
  ...["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-pthread"],
  ...[
    "-Wall",
    "-Wextra",
    "-Wno-unknown-warning-option",
    "-Wno-psabi",
    "-Wno-maybe-uninitialized",
    "-Wno-uninitialized",
  ], // g++ 12 warns inside its own AVX-512 header
];
const X86_FLAGS: Record<string, string[]> = {
  isa_avx2: ["-mavx2", "-mfma", "-mf16c"],
  isa_avx512: ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
};

/** One object file: its source and its flags. */
interface Unit {
  source: string;
  object: string;
  flags: string[];
}

function log(line: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`));
}

function fail(line: string): never {
  log(`build: ${line}`);
  Deno.exit(1);
}

/** The file name of the CPU library on this system. */
export function libraryName(kind: string, os: string = Deno.build.os): string {
  return os === "darwin" ? `libpagesift_${kind}.dylib` : `libpagesift_${kind}.so`;
}

async function run(command: string, args: string[]): Promise<{ ok: boolean; stderr: string }> {
  const { success, stderr } = await new Deno.Command(command, { args, stdout: "null", stderr: "piped" }).output();
  return { ok: success, stderr: new TextDecoder().decode(stderr) };
}

/** The first compiler that answers. */
async function findCompiler(): Promise<string> {
  const asked = Deno.env.get("CXX");
  for (const name of asked ? [asked] : ["g++", "clang++"]) {
    try {
      if ((await run(name, ["--version"])).ok) return name;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return fail(
    `No C++ compiler found (${
      asked ?? "g++, clang++"
    }); install one, for example with "apt-get install g++" or "xcode-select --install", or set CXX`,
  );
}

function units(): Unit[] {
  const folders = ["csrc/api", "csrc/cpu"];
  const found: Unit[] = [];
  for (const folder of folders) {
    for (const entry of Deno.readDirSync(join(ROOT, folder))) {
      const stem = basename(entry.name, ".cpp");
      if (stem === entry.name || (X86_FLAGS[stem] && Deno.build.arch !== "x86_64")) continue;
      const source = join(ROOT, folder, entry.name);
      found.push({ source, object: join(BUILD, `${basename(folder)}_${stem}.o`), flags: X86_FLAGS[stem] ?? [] });
    }
  }
  return found.sort((a, b) => a.source.localeCompare(b.source));
}

/** When the newest of the files under csrc/, or this script, was changed (ms). */
function newestSource(folder: string = join(ROOT, "csrc")): number {
  let newest = Deno.statSync(fromFileUrl(import.meta.url)).mtime?.getTime() ?? 0;
  for (const entry of Deno.readDirSync(folder)) {
    const path = join(folder, entry.name);
    newest = Math.max(newest, entry.isDirectory ? newestSource(path) : Deno.statSync(path).mtime?.getTime() ?? 0);
  }
  return newest;
}

function modified(path: string): number {
  try {
    return Deno.statSync(path).mtime?.getTime() ?? 0;
  } catch {
    return 0;
  }
}

/** The files a unit includes, itself among them, as the compiler wrote them beside its object. */
function dependencies(unit: Unit): string[] {
  try {
    const text = Deno.readTextFileSync(unit.object.replace(/\.o$/, ".d"));
    return text.replace(/^[^:]*:/, "").replaceAll("\\\n", " ").split(/\s+/).filter((path) => path !== "");
  } catch {
    return [];
  }
}

function isStale(unit: Unit): boolean {
  const built = modified(unit.object);
  const inputs = dependencies(unit);
  return built === 0 || inputs.length === 0 || inputs.some((path) => modified(path) === 0 || modified(path) > built) ||
    modified(fromFileUrl(import.meta.url)) > built;
}

async function compile(compiler: string, unit: Unit): Promise<void> {
  const temporary = `${unit.object}.${Deno.pid}.tmp`;
  const args = [
    ...COMMON_FLAGS,
    ...unit.flags,
    "-MMD",
    "-MF",
    unit.object.replace(/\.o$/, ".d"),
    "-c",
    unit.source,
    "-o",
    temporary,
  ];
  const { ok, stderr } = await run(compiler, args);
  if (stderr) log(stderr.trimEnd());
  if (!ok) fail(`${compiler} could not compile ${unit.source.slice(ROOT.length)}`);
  Deno.renameSync(temporary, unit.object);
}

/** Runs at most as many compilations at once as there are cores. */
async function compileAll(compiler: string, stale: Unit[]): Promise<void> {
  const queue = [...stale];
  const workers = Array.from({ length: navigator.hardwareConcurrency }, async () => {
    for (let unit = queue.shift(); unit; unit = queue.shift()) await compile(compiler, unit);
  });
  await Promise.all(workers);
}

async function link(compiler: string, all: Unit[], library: string): Promise<void> {
  const temporary = `${library}.${Deno.pid}.tmp`;
  const { ok, stderr } = await run(compiler, [
    "-shared",
    "-pthread",
    ...all.map((unit) => unit.object),
    "-o",
    temporary,
  ]);
  if (!ok) fail(`${compiler} could not link ${basename(library)}: ${stderr.trim()}`);
  Deno.renameSync(temporary, library);
}

async function buildCpu(): Promise<void> {
  const library = join(BUILD, libraryName("cpu"));
  if (modified(library) > newestSource()) return;
  const compiler = await findCompiler();
  Deno.mkdirSync(BUILD, { recursive: true });
  const all = units();
  const stale = all.filter(isStale);
  const started = performance.now();
  log(`build: compiling ${stale.length} of ${all.length} files of the CPU library with ${compiler}`);
  await compileAll(compiler, stale);
  await link(compiler, all, library);
  log(`build: ${library.slice(ROOT.length)} is ready after ${((performance.now() - started) / 1000).toFixed(1)} s`);
}

if (import.meta.main) await buildCpu();
