/** `pagesift bench` as a process of its own, with cells of milliseconds. */
import { fromFileUrl } from "@std/path";
import { type Finished, runDeno } from "../support/process.ts";

const MAIN = fromFileUrl(new URL("../../cli/main.ts", import.meta.url));

/** A small layer, measured twice. */
export const TINY_ATTENTION = ["-c", "300", "--heads", "4/2", "--head-dim", "32", "--budget", "64", "-r", "2"];
/** The shape of the shipped model with few tokens, measured twice. */
export const TINY_GENERATE = ["--shape", "default", "-p", "8", "-n", "4", "-d", "0,200", "--budget", "64", "-r", "2"];

/** Runs `pagesift bench SUBJECT` on the CPU with two threads. */
export function runBench(subject: string, ...args: string[]): Promise<Finished> {
  return runDeno(["run", "-A", MAIN, "bench", subject, "--device", "cpu", "-t", "2", ...args]);
}

/** Starts it, and waits until stderr has held the text. */
export async function startBenchUntil(
  text: string,
  subject: string,
  ...args: string[]
): Promise<{ child: Deno.ChildProcess; stderr: ReadableStreamDefaultReader<string> }> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", MAIN, "bench", subject, "--device", "cpu", "-t", "2", ...args],
    ...{ stdin: "null", stdout: "piped", stderr: "piped", env: { NO_COLOR: "1" } },
  }).spawn();
  const stderr = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
  for (let seen = ""; !seen.includes(text);) {
    const { value, done } = await stderr.read();
    if (done) throw new Error(`stderr ended without "${text}": ${seen}`);
    seen += value;
  }
  return { child, stderr };
}

/** A folder that lives as long as its test. */
export async function withFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync();
  try {
    await work(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}
