/** The first run of a newcomer: a long text with a planted fact through stdin, a question, and the stats of the answer. */
import { fromFileUrl, join } from "@std/path";
import { log } from "../output.ts";

const ROOT = fromFileUrl(new URL("../..", import.meta.url));
const TEXT = "examples/war_of_the_worlds.txt";
const QUESTION = "What is the code for the silver lantern? The code for the silver lantern is";
const ARGS = ["generate", QUESTION, "--max-tokens", "12", "--stop", ".", "--device", "cpu", "--verbose"];

const shown = ARGS.map((arg) => arg.includes(" ") ? `"${arg}"` : arg).join(" ");
log(`$ cat ${TEXT} | deno task pagesift ${shown}`);
const child = new Deno.Command(Deno.execPath(), {
  args: ["run", "-A", join(ROOT, "cli", "main.ts"), ...ARGS],
  stdin: "piped",
}).spawn();
await (await Deno.open(join(ROOT, TEXT))).readable.pipeTo(child.stdin);
const { code } = await child.status;
Deno.exit(code);
