/** Mutated model files: a short run of scripts/gate/fuzz_safetensors.ts, and the inputs that were kept. */
import { assert, assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { fuzz } from "../../scripts/gate/fuzz_safetensors.ts";
import { FuzzFolder, type Target, TARGETS } from "../../scripts/gate/fuzz_targets.ts";

const CORPUS = fromFileUrl(new URL("../fixtures/fuzz", import.meta.url));
const INPUTS = 20_000;

Deno.test(`the readers of a model folder take or refuse ${INPUTS} mutated inputs, and nothing else happens`, async () => {
  const report = await fuzz(INPUTS, 20_260_527);
  assertEquals(report.failures, []);
  assertEquals(report.accepted + report.rejected, INPUTS);
  // Mutations that were all refused, or never, would try nothing behind the first check.
  assert(report.accepted > INPUTS / 100 && report.rejected > INPUTS / 2, JSON.stringify(report));
});

Deno.test("the readers of a model folder answer every kept input as its name says", async () => {
  using folder = await FuzzFolder.open();
  const seen = new Set<Target>();
  for (const { name } of Deno.readDirSync(CORPUS)) {
    const target = TARGETS.find((one) => name.startsWith(one))!;
    seen.add(target);
    const accepted = await folder.accepts({ target, bytes: Deno.readFileSync(join(CORPUS, name)) });
    assertEquals(accepted, name.includes("-taken"), name);
  }
  assertEquals(seen.size, TARGETS.length);
});
