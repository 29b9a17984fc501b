/** The browser for the tests of reports. */

const NAMES = ["chromium", "chromium-browser", "google-chrome"];
const PACKAGE = "chromium";

/** Path of Chromium: `$CHROMIUM`, or the first of the usual names in the PATH. */
export function findChromium(): string | undefined {
  const named = Deno.env.get("CHROMIUM");
  if (named) return named;
  const folders = (Deno.env.get("PATH") ?? "").split(":").filter((folder) => folder !== "");
  return NAMES.flatMap((name) => folders.map((folder) => `${folder}/${name}`)).find(isFile);
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** Installs Debian's package if possible. Returns the reason if it could not. */
export async function installChromium(): Promise<string | undefined> {
  if (!isFile("/usr/bin/apt-get")) return "there is no apt-get";
  if (Deno.uid() !== 0) return "only root can install packages";
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  for (const args of [["update"], ["install", "-y", "--no-install-recommends", PACKAGE]]) {
    const { success, stderr } = await new Deno.Command("apt-get", { args, env, stdin: "null" }).output();
    if (!success) return `apt-get ${args[0]} failed: ${lastLine(new TextDecoder().decode(stderr))}`;
  }
  return undefined;
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}
