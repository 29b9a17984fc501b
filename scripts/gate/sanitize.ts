/**
 * A fast part of the operation tests, and a short answer of the default model, under NVIDIA's compute-sanitizer. Prints a table with a
 * row for each tool and fails on any finding.
 *
 *     deno run -A scripts/gate/sanitize.ts [--tools memcheck,racecheck,initcheck,synccheck]
 */
import { parseArgs } from "@std/cli/parse-args";
import { dirname, join } from "@std/path";
import { runMain, whyNoGpu } from "./gpu.ts";
import { print } from "../output.ts";
import { modified, ROOT, tryRun } from "../release/native_library.ts";
import { countsOf } from "./test_run.ts";
import { findNvcc } from "../release/toolchain.ts";

/** The exit code of compute-sanitizer with findings; failed tests exit with 1. */
const FOUND = 9;
const SHOWN_LINES = 30;
const TOOLS: Readonly<Record<string, readonly string[]>> = {
  memcheck: [],
  racecheck: ["--racecheck-report", "all"],
  initcheck: [],
  synccheck: [],
};

/** Tests of every operation, with and without tensor cores, with different page sizes, full and partial pages. */
const CHOSEN = [
  "^(add|embedding|rmsNorm|ropeTable|rope|siluMul|geluMul|scale|scatterAdd|routeExperts) ",
  "^argmax of \\[[45],",
  "^sample (walks|counts|keeps|gives|never|serves) ",
  "^matmul of (1|8|9|17|24) tokens (with|adds)",
  "^fusedMatmul ",
  "^append(Rotated|Attend|SparseAttention) gives",
  "^pageMass (serves|with)",
  "(heads of (48|128), (1|4|5) a KV head|heads of 64, (4|8) a KV head)",
  "^append of two interleaved",
  "^renewPage ",
  "^scorePages of a sequence of (9|4096) tokens",
  "^selectPages takes (4|63) of any number of pages with (random|equal|NaN, )",
  "^selectPages takes 64 of 131072 pages with random",
  "^attend (reads a sequence of several splits|over other pages|with a window of (64|300) )",
  "^attendPrefill (of 130 tokens|with a window of 65 )",
  "^choosePromptPages and attention over them for (70|130) tokens",
  "^attendSparse gives .* for (heads of (64|80|128)|eight query|a batch of different|a batch of many|sequences beside|a budget of (one|forced)|a large)",
  "^choosePages (misses few pages of a batch|takes the pages of one level .*budget of)",
  "^addRmsNorm of \\[(3|5),",
  "^KvCache.append refuses",
].join("|");
const TESTS = ["test", "-A", "--no-check", "--filter", `/${CHOSEN}/`, "tests/kernels", "tests/ffi"];
/** Long enough that decode steps select pages. */
const GENERATE = [
  ...["run", "-A", "--no-check", "cli/main.ts", "generate", "--device", "cuda", "-n", "3", "-c", "700"],
  ...["--truncate", "tail", "--sparse", "on", "--sparse-budget", "128", "-f", "examples/war_of_the_worlds.txt"],
];

interface Report {
  findings: number;
  /** Tests that passed, for the run with tests. */
  passed: number;
  ok: boolean;
  output: string;
  seconds: number;
}

/** `$COMPUTE_SANITIZER`, otherwise on the PATH, otherwise next to nvcc. */
async function findSanitizer(): Promise<string | undefined> {
  const nvcc = findNvcc();
  const folders = [...nvcc ? [dirname(nvcc)] : [], "/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer"];
  const beside = folders.map((folder) => join(folder, "compute-sanitizer")).filter((path) => modified(path) > 0);
  for (const name of [Deno.env.get("COMPUTE_SANITIZER") || "compute-sanitizer", ...beside]) {
    if ((await tryRun(name, ["--version"]))?.ok) return name;
  }
  return undefined;
}

/** Findings according to the tool's summaries; undefined without a summary, as when it never attached to the GPU. */
export function countFindings(output: string): number | undefined {
  const counts = [...output.matchAll(/(?:ERROR|RACECHECK) SUMMARY: (\d+)/g)].map(([, count]) => Number(count));
  return counts.length === 0 ? undefined : counts.reduce((sum, count) => sum + count, 0);
}

async function runUnder(sanitizer: string, tool: string, args: readonly string[]): Promise<Report> {
  const started = performance.now();
  const options = ["--tool", tool, ...TOOLS[tool] ?? [], "--error-exitcode", `${FOUND}`, "--target-processes", "all"];
  const { code, stdout, stderr } = await new Deno.Command(sanitizer, {
    args: [...options, Deno.execPath(), ...args],
    cwd: ROOT,
    env: { PAGESIFT_TEST_DEVICE: "cuda", NO_COLOR: "1" },
    stdin: "null",
  }).output();
  const output = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  const counted = countFindings(output);
  return {
    findings: code === FOUND ? Math.max(counted ?? 0, 1) : counted ?? 0,
    passed: args === TESTS ? countsOf(output).passed : 0,
    ok: code === 0 && counted !== undefined,
    output: counted === undefined ? `${output}\n${tool} wrote no summary, so it did not observe this run` : output,
    seconds: (performance.now() - started) / 1000,
  };
}

/** The relevant part of a failed run: the first finding, otherwise its end. */
function excerpt(output: string): string {
  const lines = output.trim().split("\n");
  const first = lines.findIndex((line) =>
    /^=+ *(Invalid|Error|Warning|Uninit|Barrier|Race|Program hit|Internal)/i.test(line)
  );
  return (first < 0 ? lines.slice(-SHOWN_LINES) : lines.slice(first, first + SHOWN_LINES)).join("\n");
}

async function check(sanitizer: string, tool: string): Promise<boolean> {
  const [tests, generate] = [
    await runUnder(sanitizer, tool, TESTS),
    await runUnder(sanitizer, tool, GENERATE),
  ];
  const seconds = (tests.seconds + generate.seconds).toFixed(0);
  print(`| ${tool} | ${tests.passed} | ${tests.findings} | ${generate.findings} | ${seconds} s |`);
  const failed = [tests, generate].filter(({ ok, findings }) => !ok || findings > 0);
  for (const { output } of failed) print(excerpt(output));
  return failed.length === 0 && tests.passed > 0;
}

async function main(): Promise<number> {
  const asked = parseArgs(Deno.args, { string: ["tools"] })["tools"];
  const tools = asked === undefined ? Object.keys(TOOLS) : String(asked).split(",");
  const unknown = tools.find((tool) => !(tool in TOOLS));
  if (unknown !== undefined) {
    print(`sanitize: Unknown tool "${unknown}", expected ${Object.keys(TOOLS).join(", ")}`);
    return 2;
  }
  const sanitizer = await findSanitizer();
  const reason = sanitizer === undefined ? "compute-sanitizer is not installed" : whyNoGpu();
  if (sanitizer === undefined || reason !== undefined) {
    print(`sanitize: skipped: ${reason}`);
    return 0;
  }
  print("| tool | tests passed | findings in tests | findings in generate | time |\n|---|---|---|---|---|");
  let clean = true;
  for (const tool of tools) clean = await check(sanitizer, tool) && clean;
  return clean ? 0 : 1;
}

if (import.meta.main) await runMain("sanitize", main);
