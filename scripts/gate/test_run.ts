/** Runs `deno test`, shows its output, and counts results. */
import { print } from "../output.ts";
import { ROOT } from "../release/native_library.ts";

export interface Counts {
  passed: number;
  failed: number;
  /** Ignored on this machine, or filtered out. */
  skipped: number;
}

export interface TestRun {
  success: boolean;
  counts: Counts;
}

/** The numbers in the last line of `deno test`; one failed test if there is no such line. */
export function countsOf(output: string): Counts {
  // deno-lint-ignore no-control-regex
  const text = output.replaceAll(/\x1b\[[0-9;]*m/g, "");
  const summary = text.match(/^(?:ok|FAILED) \| .*$/gm)?.at(-1);
  if (!summary) return { passed: 0, failed: 1, skipped: 0 };
  const count = (what: string): number => Number(summary.match(new RegExp(`(\\d+) ${what}`))?.[1] ?? 0);
  return { passed: count("passed"), failed: count("failed"), skipped: count("ignored") + count("filtered out") };
}

/** "12 passed, 0 failed, 3 skipped" */
export function countLine({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

/** Tests to run: arguments of `deno test`, additions to the environment, and whether to show only failures. */
export interface TestOptions {
  args: readonly string[];
  env?: Readonly<Record<string, string>>;
  failuresOnly?: boolean;
}

export async function runTests({ args, env = {}, failuresOnly = false }: TestOptions): Promise<TestRun> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["test", "-A", "--trace-leaks", ...args],
    env: { ...env },
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: failuresOnly ? "null" : "inherit",
  }).spawn();
  let tail = "";
  for await (const chunk of child.stdout) {
    if (!failuresOnly) Deno.stdout.writeSync(chunk);
    tail = (tail + new TextDecoder().decode(chunk)).slice(-4096);
  }
  const { success } = await child.status;
  if (failuresOnly && !success) print(tail);
  return { success, counts: countsOf(tail) };
}
