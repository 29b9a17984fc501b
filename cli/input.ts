import { PagesiftError } from "../engine/errors.ts";
import { isStdin, readText, STDIN } from "./read_text.ts";
import type { CommandRun } from "./command_run.ts";
import type { Source } from "./world.ts";

/** Where a prompt comes from. */
export interface PromptSources {
  /** Texts of `--prompt`. */
  prompt: readonly string[];
  files: readonly string[];
  /** Words of the command line that are not options. */
  words: readonly string[];
  noStdin: boolean;
  lossy: boolean;
}

/** True when the command line names no prompt and stdin cannot supply one. */
export function hasNoPrompt(sources: PromptSources, stdin: Source): boolean {
  return sources.prompt.length + sources.files.length + sources.words.length === 0 && !readsStdin(sources, stdin);
}

/** A part of a prompt: where it came from, and its characters `[start, end)`. */
export interface NamedPart {
  name: string;
  start: number;
  end: number;
}

/** A prompt and its parts. */
export interface NamedPrompt {
  prompt: string;
  parts: NamedPart[];
}

const STDIN_NAME = "<stdin>";
/** The name of text that was typed. */
export const TYPED_NAME = "<prompt>";

/** The prompt of stdin, then the files, then `--prompt`, then the words, with a blank line between parts. */
export async function readPrompt(sources: PromptSources, session: CommandRun): Promise<string> {
  return (await readNamedPrompt(sources, session)).prompt;
}

/** {@link readPrompt}, with the position of each part; a separator belongs to the part before it. */
export async function readNamedPrompt(sources: PromptSources, session: CommandRun): Promise<NamedPrompt> {
  const paths = sources.files.filter((path) => !isStdin(path));
  if (readsStdin(sources, session.world.stdin)) paths.unshift(STDIN);
  const read: NamedText[] = [];
  for (const path of paths) {
    const text = await readText(path, session, sources.lossy);
    read.push({ name: path === STDIN ? STDIN_NAME : path, text });
  }
  const typed = [...sources.prompt, sources.words.filter(isText).join(" ")].filter(isText);
  const texts = [...read, ...typed.map((text) => ({ name: TYPED_NAME, text }))].filter(({ text }) => text !== "");
  const joined = joinTexts(texts);
  const prompt = typed.length > 0 ? joined.prompt : dropLastNewline(joined.prompt);
  if (prompt.trim() === "") throw new PagesiftError("usage", "Prompt is empty; pass text with -p, -f or on stdin");
  return { prompt, parts: joined.parts.map((part) => ({ ...part, end: Math.min(part.end, prompt.length) })) };
}

function readsStdin({ prompt, files, words, noStdin }: PromptSources, stdin: Source): boolean {
  const named = [...prompt, ...words].includes(STDIN) || files.some(isStdin);
  if (named && noStdin) {
    throw new PagesiftError("usage", `"-" reads stdin, but --no-stdin forbids it; omit one of them`);
  }
  return named || !noStdin && !stdin.isTerminal();
}

function isText(word: string): boolean {
  return word !== STDIN && word !== "";
}

/** A text and where it came from. */
export interface NamedText {
  name: string;
  text: string;
}

/** Texts as one prompt, separated as paragraphs are; newlines at the end of a text count. */
export function joinTexts(texts: readonly NamedText[]): NamedPrompt {
  const starts: number[] = [];
  let prompt = "";
  for (const { text } of texts) {
    if (prompt !== "") prompt += /\n\r?\n$/.test(prompt) ? "" : prompt.endsWith("\n") ? "\n" : "\n\n";
    starts.push(prompt.length);
    prompt += text;
  }
  const parts = texts.map(({ name }, index) => ({
    name,
    start: starts[index] ?? 0,
    end: starts[index + 1] ?? prompt.length,
  }));
  return { prompt, parts };
}

/** The newline at the end of a text file is not part of the prompt: the model would continue on a new line. */
function dropLastNewline(text: string): string {
  return text.replace(/\r?\n$/, "");
}
