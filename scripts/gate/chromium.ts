/** The browser for the tests of reports. */
import { installPackages } from "./debian.ts";

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
  return await installPackages([PACKAGE]);
}
