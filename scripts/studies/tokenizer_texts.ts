/** Texts that tokenizers are compared on. */
import { join } from "@std/path";
import { ROOT } from "../release/native_library.ts";

/** Texts that tokenizers are known to disagree about. */
export const FIXED_TEXTS: readonly string[] = [
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

/** The fixed texts, and pieces of prose up to `count` texts: of the shipped book, or of the text files of a folder. */
export function gatherTexts(count: number, books?: string): string[] {
  const file = join(ROOT, "examples", "war_of_the_worlds.txt");
  const files = books === undefined ? [file] : [...Deno.readDirSync(books)].map(({ name }) => join(books, name)).sort();
  const prose = files.map((path) => Deno.readTextFileSync(path));
  const pieces = Array.from({ length: count - FIXED_TEXTS.length }, (_, index) => {
    const text = prose[index % prose.length]!;
    const start = (index * 7919) % Math.max(1, text.length - 3000);
    return text.slice(start, start + 200 + 40 * index);
  });
  return [...FIXED_TEXTS, ...pieces];
}
