/** What scripts say. */

/** A line to stdout. */
export function print(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

/** A line to stderr, for what is not a result: progress, and why something cannot be done. */
export function log(line: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`));
}
