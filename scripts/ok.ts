/** The gate: formatting, lint, types, ABI, import arrows, then all tests. Stops at the first that fails. */
import { fromFileUrl } from "@std/path";

const ROOT = fromFileUrl(new URL("..", import.meta.url));
const SOURCES = ["mod.ts", "cli", "engine", "ffi", "scripts", "tests"];
const STEPS: [title: string, args: string[]][] = [
  ["format", ["fmt", "--check"]],
  ["lint", ["lint"]],
  ["types", ["check", ...SOURCES]],
  ["C contract", ["run", "-A", "scripts/check_abi.ts"]],
  ["import arrows", ["run", "-A", "scripts/check_layers.ts"]],
  ["build", ["run", "-A", "scripts/build.ts"]],
];

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

async function run(title: string, args: string[]): Promise<void> {
  say(`== ${title}`);
  const { success } = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT, stdin: "null" }).spawn().status;
  if (success) return;
  say(`ok: ${title} failed`);
  Deno.exit(1);
}

/** Runs the tests, shows what they print, and closes with the plain line that counts them. */
async function runTests(): Promise<boolean> {
  say("== tests");
  const args = ["test", "-A", "--trace-leaks", "--parallel", "tests/"];
  const child = new Deno.Command(Deno.execPath(), { args, cwd: ROOT, stdin: "null", stdout: "piped" }).spawn();
  let tail = "";
  for await (const chunk of child.stdout) {
    Deno.stdout.writeSync(chunk);
    tail = (tail + new TextDecoder().decode(chunk)).slice(-4096);
  }
  const { success } = await child.status;
  // deno-lint-ignore no-control-regex
  const counted = tail.replaceAll(/\x1b\[[0-9;]*m/g, "").match(/(\d+) passed.*?\| (\d+) failed/);
  say(`${counted?.[1] ?? 0} passed, ${counted?.[2] ?? 1} failed`);
  return success;
}

for (const [title, args] of STEPS) await run(title, args);
if (!await runTests()) Deno.exit(1);
