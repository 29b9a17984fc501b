/**
 * The gate: formatting, lint, types, documentation of the public API, the JSR package, format of the native sources, format and lint of
 * the Python, ABI and import arrows, then the CPU library for arm64 under QEMU, the examples of the documentation, the tests of jobs on
 * Ray, all tests on the GPU if one answers, and all tests on the CPU. Stops at the first step that fails.
 */
import { print } from "../output.ts";
import { ROOT } from "../release/native_library.ts";
import { countLine, runTests } from "./test_run.ts";

const SOURCES = ["mod.ts", "cli", "bench", "inspect", "engine", "ffi", "scripts", "tests"];
const STEPS: [title: string, args: string[]][] = [
  ["format", ["fmt", "--check"]],
  ["lint", ["lint"]],
  ["types", ["check", ...SOURCES]],
  ["public API", ["doc", "--lint", "mod.ts"]],
  ["JSR package", ["publish", "--dry-run", "--allow-dirty", "--quiet"]],
  ["native format", ["run", "-A", "scripts/gate/format_native.ts"]],
  ["Python", ["run", "-A", "scripts/gate/format_python.ts"]],
  ["C contract", ["run", "-A", "scripts/gate/abi.ts"]],
  ["import arrows", ["run", "-A", "scripts/gate/check_layers.ts"]],
  ["docs", ["run", "-A", "scripts/gate/check_docs.ts"]],
  ["build", ["run", "-A", "scripts/release/build.ts"]],
  ["arm64", ["run", "-A", "scripts/gate/test_arm64.ts", "--install"]],
  ["examples", ["test", "-A", "--doc", "--quiet", "mod.ts", "engine", "ffi", "docs/api.md", "docs/pages.md"]],
  ["Ray tests", ["run", "-A", "scripts/gate/test_ray.ts"]],
  ["GPU tests", ["run", "-A", "scripts/gate/test_gpu.ts"]],
];

async function run(title: string, args: string[]): Promise<void> {
  print(`== ${title}`);
  const { success } = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT, stdin: "null" }).spawn().status;
  if (success) return;
  print(`ok: ${title} failed`);
  Deno.exit(1);
}

for (const [title, args] of STEPS) await run(title, args);
print("== tests");
const { success, counts } = await runTests({ args: ["--parallel", "tests/"] });
print(countLine(counts));
if (!success) Deno.exit(1);
