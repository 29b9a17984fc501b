/**
 * The CPU library for arm64: cross-compiled, and run under QEMU by programs of tests/native, on a processor without the optional
 * instructions and on one with all of them. On an arm64 machine, the programs run as they are and require one with all of them.
 *
 *     deno run -A scripts/gate/test_arm64.ts [--install]
 *
 * A row says what ran. `--install` installs Debian's cross compiler and emulator if they are missing. Without them, everything is
 * skipped, with the reason.
 */
import { dirname, relative } from "@std/path";
import { print } from "../output.ts";
import { BuildError, buildLibrary, ROOT, tryRun } from "../release/native_library.ts";
import { ARM64_LIBRARY, arm64Plan, findCrossCompiler, ISA_FLAGS } from "../release/toolchain.ts";
import { installPackages } from "./debian.ts";
import { buildNative, FAULTS, fuzz, type Native, resultOf, runProgram, threads } from "./native_programs.ts";

const EMULATOR = "qemu-aarch64-static";
const PACKAGES = ["g++-aarch64-linux-gnu", "qemu-user-static"];
const EMULATED = Deno.build.arch !== "aarch64";
const SHOWN_LINES = 10;

/** A processor that QEMU emulates, and the instruction set to run on it. */
interface Target {
  processor: string;
  set: string;
}
const OLD: Target = { processor: "cortex-a57", set: "neon" };
const NEW: Target = { processor: "max", set: "neonbf16" };
const ALL: readonly Target[] = [OLD, { ...NEW, set: "neon" }, { ...NEW, set: "neondot" }, NEW];

function numeric(name: string): Native {
  return { name, sources: [name], flags: [], args: [] };
}

/** Products read nothing behind their weights; with the instructions that a file of csrc/cpu is compiled for. */
function bounds(file: string): Native {
  const checks = ["-fsanitize=undefined", "-fno-sanitize-recover=all"];
  const instructions = ISA_FLAGS.aarch64[file] ?? [];
  return { name: `matmul_bounds_${file}`, sources: ["matmul_bounds"], flags: [...checks, ...instructions], args: [] };
}

/** Instruction sets differ in products only. */
const PROGRAMS: readonly [native: Native, on: readonly Target[]][] = [
  [numeric("products"), ALL],
  [numeric("attention"), [OLD, NEW]],
  [numeric("scoring"), [OLD, NEW]],
  [bounds("isa_portable"), [OLD]],
  [bounds("isa_neonbf16"), [NEW]],
  [fuzz(2), [OLD, NEW]],
  [FAULTS, [OLD]],
  [threads(10), [OLD, NEW]],
];

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

/** Runs a program and prints its row. */
async function check(native: Native, program: string, { processor, set }: Target): Promise<boolean> {
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
  for (const [native, targets] of PROGRAMS) {
    const program = await buildNative(compiler, folder, native, ["-O1", "-static"]);
    for (const target of targets) passed = await check(native, program, target) && passed;
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
