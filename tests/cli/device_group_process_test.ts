/** `--devices` at the command line; the CPU stands in for all devices. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { type Finished, runDeno } from "../support/process.ts";

const MAIN = fromFileUrl(new URL("../../cli/main.ts", import.meta.url));
const DEFAULT = fromFileUrl(new URL("../../models/default", import.meta.url));

function generate(...args: string[]): Promise<Finished> {
  const fixed = ["-m", DEFAULT, "--device", "cpu", "-t", "2", "--no-stdin", "-n", "12", "--temp", "0"];
  return runDeno(["run", "-A", MAIN, "generate", ...fixed, ...args, "The war began when"]);
}

Deno.test("generate answers on two devices as on one", async () => {
  const [one, two] = [await generate(), await generate("--devices", "0,1")];
  assertEquals([two.code, two.stdout], [0, one.stdout], two.stderr);
});

Deno.test("generate -v names the number of devices", async () => {
  const { code, stderr } = await generate("--devices", "0,1", "-v");
  assertEquals(code, 0);
  assertStringIncludes(stderr, "2 devices");
});

for (const list of ["0,0", "0,x", "", "-1"]) {
  Deno.test(`--devices "${list}" is refused as usage`, async () => {
    const { code, stderr } = await generate(`--devices=${list}`);
    assertEquals(code, 2);
    assertStringIncludes(stderr, "--devices");
  });
}

Deno.test("more devices than KV heads are refused, with a number that works", async () => {
  const { code, stderr } = await generate("--devices", "0,1,2,3,4");
  assertEquals(code, 2);
  assertStringIncludes(stderr, "--devices");
});

Deno.test("bench generate measures a shape on two devices", async () => {
  const flags = "--device cpu --devices 0,1 --shape default -p 32 -n 2 -d 64 -r 2 -o json".split(" ");
  const { code, stderr } = await runDeno(["run", "-A", MAIN, "bench", "generate", ...flags]);
  assertEquals(code, 0, stderr);
});
