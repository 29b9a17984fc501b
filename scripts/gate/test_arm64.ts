/**
 * The CPU library for arm64: cross-compiled, and run under QEMU by programs of tests/native, once as a processor without the optional
 * instructions and once as one with all of them, with each instruction set that it has. On an arm64 machine, the programs run as they are.
 *
 *     deno run -A scripts/gate/test_arm64.ts [--install]
 *
 * A row says what ran. `--install` installs Debian's cross compiler and emulator if they are missing. Without them, everything is
 * skipped, with the reason.
 */
import { dirname, relative } from "@std/path";
import { print } from "../output.ts";
import { BuildError, buildLibrary, ROOT, tryRun } from "../release/native_library.ts";
import { ARM64_LIBRARY, arm64Plan, findCrossCompiler } from "../release/toolchain.ts";
import { installPackages } from "./debian.ts";
import { buildNative, FAULTS, fuzz, type Native, resultOf, runProgram, threads } from "./native_programs.ts";

const EMULATOR = "qemu-aarch64-static";
const PACKAGES = ["g++-aarch64-linux-gnu", "qemu-user-static"];
const EMULATED = Deno.build.arch !== "aarch64";
const SHOWN_LINES = 10;

/** A processor that QEMU emulates, and the instruction sets to run on it; the last one is the one that it chooses. */
interface Processor {
  name: string;
  sets: readonly string[];
}
const PROCESSORS: readonly Processor[] = [
  { name: "cortex-a57", sets: ["portable"] },
  { name: "max", sets: ["portable"] },
];

const NUMERIC: readonly Native[] = ["products", "attention", "scoring"].map((name) => (
  { name, sources: [name], flags: [], args: [] }
));
/** What does not depend on the instruction set. */
const BOUNDS: Native = {
  name: "matmul_bounds",
  sources: ["matmul_bounds"],
  flags: ["-fsanitize=undefined", "-fno-sanitize-recover=all"],
  args: [],
};
const OTHERS: readonly Native[] = [BOUNDS, fuzz(2), FAULTS, threads(10)];

async function hasTools(): Promise<boolean> {
  const compiler = await findCrossCompiler().then(() => true, () => false);
  return compiler && (!EMULATED || (await tryRun(EMULATOR, ["--version"]))?.ok === true);
}

async function whyNot(): Promise<string | undefined> {
  if (Deno.build.os !== "linux") return "this is not Linux";
  if (await hasTools()) return undefined;
  if (!Deno.args.includes("--install")) return `apt-get install ${PACKAGES.join(" ")}, or --install, makes it possible`;
  const reason = await installPackages(PACKAGES);
  return reason ?? (await hasTools() ? undefined : "the packages contain no compiler and no emulator");
}

/** Runs a program and prints its row; `set` is the instruction set that it must use, or "" for the one that it chooses. */
async function check(native: Native, program: string, processor: string, set: string): Promise<boolean> {
  const [command, ...args] = [...EMULATED ? [EMULATOR, "-cpu", processor] : [], program, ...native.args];
  const started = performance.now();
  const { code, output } = await runProgram(command ?? program, args, { PAGESIFT_ISA: set });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  print(`| ${native.name} | ${EMULATED ? processor : "this one"} | ${set} | ${resultOf(output)} | ${seconds} |`);
  if (code === 0) return true;
  print(output.trim().split("\n").slice(-SHOWN_LINES).join("\n"));
  return false;
}

async function main(): Promise<number> {
  const reason = await whyNot();
  if (reason !== undefined) {
    print(`arm64: skipped: ${reason}`);
    return 0;
  }
  await buildLibrary(arm64Plan());
  const compiler = await findCrossCompiler();
  const folder = relative(ROOT, dirname(ARM64_LIBRARY));
  let passed = true;
  print("| program | processor | instruction set | result | s |\n|---|---|---|---|---|");
  for (const native of [...NUMERIC, ...OTHERS]) {
    const program = await buildNative(compiler, folder, native, ["-O2", "-static"]);
    for (const { name, sets } of PROCESSORS) {
      for (const set of NUMERIC.includes(native) ? sets : sets.slice(-1)) {
        passed = await check(native, program, name, set) && passed;
      }
    }
  }
  return passed ? 0 : 1;
}

if (import.meta.main) {
  try {
    Deno.exit(await main());
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    print(`arm64: ${error.message}`);
    Deno.exit(1);
  }
}
