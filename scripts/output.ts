/** Output of scripts. */

/** Prints a line to stdout. */
export function print(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

/** Prints a line to stderr: progress, and reasons why something cannot be done. */
export function log(line: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`));
}
