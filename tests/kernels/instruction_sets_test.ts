/** Runs the tests of this folder once more for every other instruction set of the processor; sets it lacks count as ignored. */
import { assertEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { DEVICE_KIND } from "../support/device.ts";
import { runDeno } from "../support/process.ts";

const SETS = ["portable", "avx2", "avx512", "avx512vnni", "amx", "neon", "neondot", "neonbf16"];
const PROBE = fromFileUrl(new URL("../support/instruction_set.ts", import.meta.url));
const FOLDER = fromFileUrl(new URL(".", import.meta.url));
const SELF = fromFileUrl(import.meta.url);

async function probe(env: Record<string, string>): Promise<string> {
  const { code, stdout, stderr } = await runDeno(["run", "-A", "--no-check", PROBE], env);
  assertEquals(code, 0, stderr);
  return stdout;
}

const current = DEVICE_KIND === "cpu" ? await probe({}) : undefined;

for (const set of SETS) {
  const missing = current === undefined || await probe({ PAGESIFT_ISA: set }) !== set;
  Deno.test({
    name: `PAGESIFT_ISA=${set} passes the kernel tests${set === current ? ", as this run shows" : ""}`,
    ignore: missing,
    fn: async () => {
      if (set === current) return;
      const args = ["test", "-A", "--no-check", "--trace-leaks", "--parallel", `--ignore=${SELF}`, FOLDER];
      const { code, stdout } = await runDeno(args, { PAGESIFT_ISA: set });
      assertEquals(code, 0, stdout.slice(-8000));
    },
  });
}
