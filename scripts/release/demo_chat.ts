/**
 * A real instruct model answers a question about the beginning of a real book: SmolLM2-135M-Instruct in Q4_1, fetched on first use, with the
 * adapter of models/smollm2-sparse, so that each step reads 256 tokens.
 */
import { join } from "@std/path";
import { fetchRealModel } from "../gate/real_models.ts";
import { log } from "../output.ts";
import { ROOT } from "./native_library.ts";

const TEXT = "examples/war_of_the_worlds.txt";
const ADAPTER = "models/smollm2-sparse";
/** Of the book; about 6,000 tokens. */
const CHARACTERS = 24_000;
const QUESTION = "Which planet do the creatures in this text come from? Answer in one sentence.";
const EXPECTED = /mars|martian/i;

const model = await fetchRealModel("smollm2");
const place = ["-m", model, "--adapter", ADAPTER, "--device", "cpu", "--sparse", "on"];
const args = ["generate", ...place, "--chat", "--temp", "0", "--max-tokens", "60", "--verbose"];
log(`$ head -c ${CHARACTERS} ${TEXT} | deno task pagesift ${args.join(" ")} "${QUESTION}"`);
const child = new Deno.Command(Deno.execPath(), {
  args: ["run", "-A", join(ROOT, "cli", "main.ts"), ...args, QUESTION],
  stdin: "piped",
  stdout: "piped",
}).spawn();
const output = child.output();
const writer = child.stdin.getWriter();
await writer.write(new TextEncoder().encode((await Deno.readTextFile(join(ROOT, TEXT))).slice(0, CHARACTERS)));
await writer.close();
const { code, stdout } = await output;
Deno.stdout.writeSync(stdout);
if (code === 0 && !EXPECTED.test(new TextDecoder().decode(stdout))) {
  log(`demo_chat: expected an answer that matches ${EXPECTED}`);
  Deno.exit(1);
}
Deno.exit(code);
