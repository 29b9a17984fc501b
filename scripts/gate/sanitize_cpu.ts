/**
 * The CPU library under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer: native programs of tests/native (calls
 * with random arguments, refused memory, two threads), the tests of operations and handles, and a short answer of the default model.
 *
 *     deno run -A scripts/gate/sanitize_cpu.ts [--only asan|tsan] [--rounds 200] [--native] [--fuzzer SECONDS]
 *
 * A row says what ran and whether there are findings; the first report follows. Its topmost line "#0 ..." that names a file of csrc/ is
 * the place. `--rounds` repeats about 6,000 random calls, `--native` leaves out everything that runs under Deno, and `--fuzzer` drives the
 * same calls with libFuzzer, for which CXX must be clang++. Skipped, with the reason, if the compiler has no sanitizer.
 */
import { parseArgs } from "@std/cli/parse-args";
import { basename, join } from "@std/path";
import { print } from "../output.ts";
import { BuildError, buildLibrary, tryRun } from "../release/native_library.ts";
import { buildNative, FAULTS, fuzz, type Native, type Ran, resultOf, runProgram, threads } from "./native_programs.ts";
import { countsOf } from "./test_run.ts";
import { findCompiler, sanitizedLibrary, sanitizedPlan, type Sanitizer, sanitizerFlags } from "../release/toolchain.ts";

const REPORT = /ERROR: AddressSanitizer|ERROR: LeakSanitizer|runtime error:|WARNING: ThreadSanitizer|FAILED:/;
const SHOWN_LINES = 30;
const RUNTIMES: Readonly<Record<Sanitizer, readonly string[]>> = {
  asan: ["libasan.so", "libubsan.so"],
  tsan: ["libtsan.so"],
};
/**
 * Deno itself is not instrumented: its threads would be reported, and memory that it frees only at exit would
 * count as leaked.
 */
const UNDER_DENO = {
  ASAN_OPTIONS: "detect_leaks=0:handle_segv=0",
  TSAN_OPTIONS: "ignore_noninstrumented_modules=1:exitcode=66",
  UBSAN_OPTIONS: "print_stacktrace=1",
};
const TESTS = ["test", "-A", "--no-check", "tests/kernels", "tests/ffi"];
const GENERATE = [
  ...["run", "-A", "--no-check", "cli/main.ts", "generate", "--device", "cpu", "-n", "3", "-c", "700"],
  ...["--truncate", "tail", "--sparse", "on", "--sparse-budget", "128", "-f", "examples/war_of_the_worlds.txt"],
];

interface Options {
  rounds: number;
  nativeOnly: boolean;
  fuzzerSeconds: number;
}

function natives(sanitizer: Sanitizer, { rounds, fuzzerSeconds }: Options): Native[] {
  if (sanitizer === "tsan") return [threads(200)];
  const random = fuzz(rounds);
  const made = [random, FAULTS, threads(200)];
  if (fuzzerSeconds === 0) return made;
  const args = [`-max_total_time=${fuzzerSeconds}`, "-max_len=4096", "-timeout=10", "-print_final_stats=1"];
  return [...made, { ...random, name: "libfuzzer", flags: ["-fsanitize=fuzzer", "-DPS_LIBFUZZER"], args }];
}

/** The runtimes to preload, or undefined if the compiler has none; clang links its own statically. */
async function runtimes(compiler: string, sanitizer: Sanitizer): Promise<string[] | undefined> {
  const found = await Promise.all(RUNTIMES[sanitizer].map((name) => tryRun(compiler, [`-print-file-name=${name}`])));
  const paths = found.map((run) => run?.stdout.trim() ?? "");
  return paths.every((path) => path.startsWith("/")) ? paths.map((path) => Deno.realPathSync(path)) : undefined;
}

/** Prints a row, and the first report. */
function row(sanitizer: string, what: string, result: string, { code, output }: Ran): boolean {
  const clean = code === 0 && !REPORT.test(output);
  print(`| ${sanitizer} | ${what} | ${result} | ${clean ? "none" : "FOUND"} |`);
  if (clean) return true;
  const lines = output.trim().split("\n");
  const first = lines.findIndex((line) => REPORT.test(line));
  print((first < 0 ? lines.slice(-SHOWN_LINES) : lines.slice(first, first + SHOWN_LINES)).join("\n"));
  return false;
}

async function check(sanitizer: Sanitizer, options: Options): Promise<boolean> {
  const compiler = await findCompiler();
  const clang = basename(compiler).startsWith("clang");
  // clang finds the runtimes of gcc, which do not match the code it compiles.
  const preload = clang ? undefined : await runtimes(compiler, sanitizer);
  if (Deno.build.os !== "linux" || (preload === undefined && !clang)) {
    print(`| ${sanitizer} | skipped: ${compiler} has no ${RUNTIMES[sanitizer].join(" and ")} | | |`);
    return true;
  }
  await buildLibrary(sanitizedPlan(sanitizer));
  let clean = true;
  for (const native of natives(sanitizer, options)) {
    const program = await buildNative(compiler, join("build", sanitizer), native, sanitizerFlags(sanitizer));
    const ran = await runProgram(program, native.args);
    clean = row(sanitizer, native.name, resultOf(ran.output), ran) && clean;
  }
  return options.nativeOnly || preload === undefined ? clean : await underDeno(sanitizer, preload) && clean;
}

async function underDeno(sanitizer: Sanitizer, preload: readonly string[]): Promise<boolean> {
  const env = { ...UNDER_DENO, LD_PRELOAD: preload.join(" "), PAGESIFT_LIBRARY: sanitizedLibrary(sanitizer) };
  const tests = await runProgram(Deno.execPath(), TESTS, env);
  const { passed, failed } = countsOf(tests.output);
  const clean = row(sanitizer, "tests", `${passed} passed, ${failed} failed`, tests) && passed > 0;
  return row(sanitizer, "generate", "3 tokens", await runProgram(Deno.execPath(), GENERATE, env)) && clean;
}

async function main(): Promise<number> {
  const flags = parseArgs(Deno.args, { string: ["only", "rounds", "fuzzer"], boolean: ["native"] });
  const chosen = (["asan", "tsan"] as const).filter((one) => flags["only"] === undefined || flags["only"] === one);
  const [rounds, fuzzerSeconds] = [Number(flags["rounds"] ?? 200), Number(flags["fuzzer"] ?? 0)];
  if (chosen.length === 0 || !(rounds >= 1) || !(fuzzerSeconds >= 0)) {
    print("sanitize_cpu: expected --only asan or tsan, and numbers for --rounds and --fuzzer");
    return 2;
  }
  print("| sanitizer | what ran | result | findings |\n|---|---|---|---|");
  let clean = true;
  for (const one of chosen) {
    clean = await check(one, { rounds, fuzzerSeconds, nativeOnly: Boolean(flags["native"]) }) && clean;
  }
  return clean ? 0 : 1;
}

if (import.meta.main) {
  try {
    Deno.exit(await main());
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    print(`sanitize_cpu: ${error.message}`);
    Deno.exit(1);
  }
}
