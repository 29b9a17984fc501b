/**
 * Checks what the docs name: links, tasks, commands, flags and repository paths.
 *
 *     deno run -A scripts/gate/check_docs.ts
 *
 * Notes under docs/notes/ record history, with the commands of their commits, so only their links are checked.
 */
import { existsSync } from "node:fs";
import { dirname, join, normalize } from "@std/path";
import denoConfig from "../../deno.json" with { type: "json" };
import { log } from "../output.ts";
import { ROOT } from "../release/native_library.ts";
import { importsOf, listFiles } from "./check_layers.ts";

const HISTORY = "docs/notes/";
/** Flags of Deno itself. */
const DENO_FLAG = /^--(allow-[a-z]+|no-prompt)$/;
const FOLDERS = [
  "bench",
  "cli",
  "csrc",
  "docs",
  "engine",
  "examples",
  "ffi",
  "inspect",
  "models",
  "python",
  "scripts",
  "tests",
];
const REPOSITORY_PATH = new RegExp(`^(${FOLDERS.join("|")})/[\\w./*-]+$`);
const FLAG_IN_HELP = /(?<=^|[\s,])--?[a-z][\w-]*/gm;
const FLAG = /(?<=^|[\s[])--?[a-z][\w-]*/g;
/** Languages of fenced blocks that contain no commands. */
const NO_SHELL = /^(ts|json|python)/;

/** What a doc says in code: shell commands of its blocks, and spans in backticks. */
export function codeOf(markdown: string): { commands: string[]; spans: string[]; prose: string } {
  const blocks: string[] = [];
  const withoutFences = markdown.replaceAll(/^```(.*)\n([^]*?)^```/gm, (_, language: string, body: string) => {
    if (!NO_SHELL.test(language)) blocks.push(body);
    return "";
  });
  const prose = withoutFences.replaceAll(/(^ {4}.*\n?)+/gm, (block) => {
    blocks.push(block);
    return "\n";
  });
  const spans = [...prose.matchAll(/`([^`\n]+)`/g)].map(([, span = ""]) => span.replaceAll("\\|", "|"));
  return { commands: blocks.flatMap(commandsOf), spans, prose };
}

/** The commands of a block. Where some lines have a prompt, the others are output. */
function commandsOf(block: string): string[] {
  const lines = block.replaceAll(/\s*\\\n\s*/g, " ").split("\n").map((line) => line.trim()).filter((line) =>
    line !== ""
  );
  const prompted = lines.filter((line) => line.startsWith("$ "));
  return prompted.length > 0 ? prompted : lines;
}

function read(path: string): string {
  return Deno.readTextFileSync(join(ROOT, path));
}

/** The anchor of a heading, as forges write it. */
function anchorOf(heading: string): string {
  return heading.toLowerCase().replaceAll(/[^\p{L}\p{N}\s_-]/gu, "").trim().replaceAll(/\s/g, "-");
}

/** Relative links that lead nowhere, in a doc at `path`. */
export function checkLinks(path: string, prose: string): string[] {
  const links = [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = ""]) => link);
  return links.filter((link) => !/^[a-z]+:/.test(link)).flatMap((link) => {
    const [file = "", anchor] = link.split("#");
    const target = file === "" ? path : normalize(join(dirname(path), file));
    if (!existsSync(join(ROOT, target))) return [`links to ${link}, which does not exist`];
    if (anchor === undefined) return [];
    const anchors = [...read(target).matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) => anchorOf(heading));
    return anchors.includes(anchor) ? [] : [`links to ${link}, but ${target} has no such heading`];
  });
}

/** A script and every module of ours that it imports. */
function modulesOf(path: string, seen = new Set<string>()): Set<string> {
  if (seen.has(path) || !existsSync(join(ROOT, path))) return seen;
  seen.add(path);
  const text = read(path);
  const python = [...text.matchAll(/^(?:from|import) \.*(?:train\.)?([\w.]+)/gm)]
    .map(([, name = ""]) => join(dirname(path), `${name.replaceAll(".", "/")}.py`));
  for (const target of path.endsWith(".py") ? python : importsOf(path, text, true)) modulesOf(target, seen);
  return seen;
}

/** Whether a script's source names the flag, as an argument parser does. */
function scriptTakes(path: string, flag: string): boolean {
  const names = [`"${flag}"`, `"${flag.replace(/^-+/, "")}"`, `${flag.replace(/^-+/, "")}: "`];
  return [...modulesOf(path)].some((module) => names.some((name) => read(module).includes(name)));
}

const helpTexts = new Map<string, string | undefined>();

/** The help of a command such as "bench attention", undefined if there is no such command. */
function helpOf(command: string): string | undefined {
  if (!helpTexts.has(command)) {
    const args = ["run", "-A", join(ROOT, "cli", "main.ts"), ...command.split(" "), "--help"];
    const { success, stdout } = new Deno.Command(Deno.execPath(), { args, env: { NO_COLOR: "1" } }).outputSync();
    helpTexts.set(command, success ? new TextDecoder().decode(stdout) : undefined);
  }
  return helpTexts.get(command);
}

function checkPagesift(words: string): string[] {
  const [command] = words.match(/^(bench )?[a-z][a-z-]*/) ?? [""];
  if (command === "") return [];
  const help = helpOf(command);
  if (help === undefined) return [`names the command "pagesift ${command}", which does not exist`];
  const known = new Set(help.match(FLAG_IN_HELP));
  return flagsOf(words).filter((flag) => !known.has(flag)).map((flag) => `names ${flag}, unknown to "${command}"`);
}

function flagsOf(words: string): string[] {
  return [...words.matchAll(FLAG)].map(([flag]) => flag);
}

function checkScript(path: string, words: string): string[] {
  if (!existsSync(join(ROOT, path))) return [`names ${path}, which does not exist`];
  return flagsOf(words).filter((flag) => !scriptTakes(path, flag)).map((flag) => `names ${flag}, unknown to ${path}`);
}

function checkTask(task: string, words: string): string[] {
  if (task === "pagesift") return checkPagesift(words);
  const line = (denoConfig.tasks as Record<string, string>)[task];
  if (line === undefined) return [`names the task "${task}", which does not exist`];
  const script = line.match(/scripts\/\S+\.ts/g)?.at(-1);
  return script === undefined ? [] : checkScript(script, words);
}

/** A job takes options of its own, and behind "--" those of generate. */
function checkJob(words: string): string[] {
  const [own = "", generate = ""] = words.split(" -- ");
  return [...checkScript("python/pagesift_ray/__main__.py", own), ...checkPagesift(`generate ${generate}`)];
}

/** What is wrong with one shell command. */
export function checkCommand(line: string): string[] {
  return line.replaceAll(/"[^"]*"/g, '""').replace(/\s#.*/, "").split(/\||&&|;/).flatMap((part) => {
    const [, task, taskWords = ""] = part.match(/\bdeno(?:@\S+)? task ([a-z][\w:]*)\s*(.*)/) ?? [];
    if (task !== undefined) return checkTask(task, taskWords);
    const [, script, scriptWords = ""] = part.match(/(scripts\/\S+\.(?:ts|py))(.*)/) ?? [];
    if (script !== undefined) return checkScript(script, scriptWords);
    const [, module, moduleWords = ""] = part.match(/\bpython3? -m (train[.\w]+)(.*)/) ?? [];
    if (module !== undefined) return checkScript(`scripts/${module.replaceAll(".", "/")}.py`, moduleWords);
    const [, jobWords] = part.match(/\bpython3? -m pagesift_ray(.*)/) ?? [];
    if (jobWords !== undefined) return checkJob(jobWords);
    const [, words] = part.match(/(?:^|[\s$])pagesift ([a-z].*)/) ?? [];
    return words === undefined ? [] : checkPagesift(words);
  });
}

function allSources(): string {
  const paths = [
    ...listFiles("cli/options", /\.ts$/),
    ...listFiles("scripts", /\.(ts|py)$/),
    ...listFiles("python", /\.py$/),
  ];
  return paths.map(read).join("\n");
}

/** What is wrong with a span in backticks: a path that is not there, or a flag that no command or script takes. */
export function checkSpan(span: string, sources: string): string[] {
  if (REPOSITORY_PATH.test(span)) {
    const path = span.replace(/[^/]*\*.*/, "");
    return existsSync(join(ROOT, path)) ? [] : [`names ${span}, which does not exist`];
  }
  if (!span.startsWith("--")) return checkCommand(span);
  return flagsOf(span).filter((flag) => !DENO_FLAG.test(flag))
    .filter((flag) => !sources.includes(`"${flag}"`) && !sources.includes(`"${flag.slice(2)}"`))
    .map((flag) => `names ${flag}, which no command or script takes`);
}

function checkDoc(path: string, sources: string): string[] {
  const { commands, spans, prose } = codeOf(read(path));
  const links = checkLinks(path, prose);
  if (path.startsWith(HISTORY)) return links;
  return [...links, ...commands.flatMap(checkCommand), ...spans.flatMap((span) => checkSpan(span, sources))];
}

if (import.meta.main) {
  const top = [...Deno.readDirSync(ROOT)].map(({ name }) => name).filter((name) => name.endsWith(".md"));
  const docs = [...top, ...listFiles("docs", /\.md$/), ...listFiles("models", /\.md$/)].sort();
  const sources = allSources();
  const problems = docs.flatMap((path) => checkDoc(path, sources).map((problem) => `${path} ${problem}`));
  log(
    problems.length === 0
      ? `check_docs: links, commands, flags and paths of ${docs.length} docs exist`
      : problems.join("\n"),
  );
  if (problems.length > 0) Deno.exit(1);
}
