/** A Deno process, run to its end. */

export interface Finished {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs `deno` with the arguments; `env` is added to this process's own. */
export async function runDeno(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  cwd: string = Deno.cwd(),
): Promise<Finished> {
  const command = new Deno.Command(Deno.execPath(), {
    args: [...args],
    env: { NO_COLOR: "1", ...env },
    cwd,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
  const { code, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}
