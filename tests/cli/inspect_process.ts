/** `pagesift inspect-pages` as a process of its own, on the shipped model and a prompt of two files. */
import { fromFileUrl, join } from "@std/path";
import { type Finished, runDeno } from "../support/process.ts";
import { withFiles } from "../support/folders.ts";
import { QUESTION, WITH_FACT, WITHOUT_FACT } from "../inspect/runs.ts";

const MAIN = fromFileUrl(new URL("../../cli/main.ts", import.meta.url));
export const SPARSE = ["--sparse-budget", "128"];

export interface InspectFolder {
  folder: string;
  /** Runs `inspect-pages` with these arguments in the folder. */
  run: (...args: string[]) => Promise<Finished>;
  /** The same on the two files and the question, with five steps. */
  ask: (...args: string[]) => Promise<Finished>;
}

/** A folder with `a.txt`, and `b.txt` which holds the fact. */
export async function withPrompt(
  work: (place: InspectFolder) => Promise<void>,
  files: Record<string, string> = {},
): Promise<void> {
  await withFiles({ "a.txt": WITHOUT_FACT, "b.txt": WITH_FACT, ...files }, async (folder) => {
    const run = (...args: string[]): Promise<Finished> =>
      runDeno(["run", "-A", MAIN, "inspect-pages", ...args], {}, folder);
    const device = ["--device", "cpu", "-t", "2", ...SPARSE, "-n", "5"];
    const ask = (...args: string[]): Promise<Finished> =>
      run(...device, "-f", "a.txt", "-f", "b.txt", QUESTION, "--no-stdin", ...args);
    await work({ folder, run, ask });
  });
}

/** Names in a folder. */
export function namesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}

export function readBytes(folder: string, name: string): Uint8Array<ArrayBuffer> {
  return Deno.readFileSync(join(folder, name));
}
