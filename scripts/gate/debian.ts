/** Packages of Debian and its relatives. */

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}

/** Installs packages if possible. Returns the reason if it could not. */
export async function installPackages(names: readonly string[]): Promise<string | undefined> {
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  if (Deno.uid() !== 0) return "only root can install packages";
  for (const args of [["update"], ["install", "-y", "--no-install-recommends", ...names]]) {
    try {
      const { success, stderr } = await new Deno.Command("apt-get", { args, env, stdin: "null" }).output();
      if (!success) return `apt-get ${args[0]} failed: ${lastLine(new TextDecoder().decode(stderr))}`;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return "there is no apt-get";
      throw error;
    }
  }
  return undefined;
}
