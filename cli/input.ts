import { PagesiftError } from "../engine/errors.ts";
import { readText, STDIN } from "./read_text.ts";
import type { Session } from "./session.ts";
import type { Source } from "./world.ts";

/** Where a prompt comes from. */
export interface PromptSources {
  /** Texts of `--prompt`. */
  prompt: readonly string[];
  files: readonly string[];
  /** Words of the command line that are no option. */
  words: readonly string[];
  noStdin: boolean;
  lossy: boolean;
}

/** True when the call names no prompt and none can come through stdin. */
export function hasNoPrompt(sources: PromptSources, stdin: Source): boolean {
  return sources.prompt.length + sources.files.length + sources.words.length === 0 && !readsStdin(sources, stdin);
}

/** The prompt of stdin, then the files, then `--prompt`, then the words, with a blank line between parts. */
export async function readPrompt(sources: PromptSources, session: Session): Promise<string> {
  const paths = sources.files.filter((path) => path !== STDIN);
  if (readsStdin(sources, session.world.stdin)) paths.unshift(STDIN);
  const read: string[] = [];
  for (const path of paths) read.push(await readText(path, session, sources.lossy));
  const typed = [...sources.prompt, sources.words.filter(isText).join(" ")].filter(isText);
  const prompt = typed.length > 0 ? joinParts([...read, ...typed]) : dropLastNewline(joinParts(read));
  if (prompt.trim() === "") throw new PagesiftError("usage", "Prompt is empty; give one with -p, -f or through stdin");
  return prompt;
}

function readsStdin({ prompt, files, words, noStdin }: PromptSources, stdin: Source): boolean {
  const named = [...prompt, ...files, ...words].includes(STDIN);
  if (named && noStdin) throw new PagesiftError("usage", `"-" reads stdin, which --no-stdin forbids; leave one out`);
  return named || !noStdin && !stdin.isTerminal();
}

function isText(word: string): boolean {
  return word !== STDIN && word !== "";
}

/** Parts are separated as paragraphs are; newlines that end a part already count. */
function joinParts(parts: readonly string[]): string {
  return parts.filter((part) => part !== "").reduce((joined, part) => {
    if (joined === "") return part;
    const separator = /\n\r?\n$/.test(joined) ? "" : joined.endsWith("\n") ? "\n" : "\n\n";
    return joined + separator + part;
  }, "");
}

/** The newline that ends a text file is no part of the prompt: the model would go on in a new line after it. */
function dropLastNewline(text: string): string {
  return text.replace(/\r?\n$/, "");
}
