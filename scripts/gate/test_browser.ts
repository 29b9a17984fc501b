/**
 * Runs the tests of the HTML report in headless Chromium. `--install` installs Debian's package if there is no Chromium. Without one,
 * the tests are counted as skipped.
 */
import { findChromium, installChromium } from "./chromium.ts";
import { print } from "../output.ts";
import { countLine, runTests } from "./test_run.ts";

const FOLDER = "tests/browser";

async function whyNoBrowser(): Promise<string | undefined> {
  if (findChromium() !== undefined) return undefined;
  if (!Deno.args.includes("--install")) return "Chromium is not installed; --install installs Debian's";
  const reason = await installChromium();
  return reason ?? (findChromium() === undefined ? "the package contains no Chromium" : undefined);
}

if (import.meta.main) {
  const reason = await whyNoBrowser();
  const { success, counts } = await runTests({ args: [FOLDER], failuresOnly: reason !== undefined });
  if (reason !== undefined) print(`browser: ${counts.skipped} tests skipped: ${reason}`);
  print(countLine(counts));
  Deno.exit(success && (reason !== undefined || counts.skipped === 0) ? 0 : 1);
}
