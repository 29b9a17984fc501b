import { PagesiftError } from "../../engine/errors.ts";
import { formatCount, formatRate, plural } from "../../engine/text/format.ts";
import type { SparseOptions } from "../../engine/types.ts";
import type { CommandRun } from "../command_run.ts";
import type { NamedText } from "../input.ts";
import { loadModel } from "../load.ts";
import type { GenerateFlags } from "../options/generate.ts";
import { Progress } from "../progress.ts";
import { chatEncoder } from "../prompt_encoder.ts";
import { isStdin, readText } from "../read_text.ts";
import { statsLines } from "../stats.ts";
import { targetFile, writeTarget } from "../write_file.ts";
import { commandHelp, completeCommand, type ConversationCommand, parseCommand } from "./commands.ts";
import { History } from "./history.ts";
import { LineEditor } from "./line_editor.ts";
import { countTurns, parseLines, toLines } from "./messages.ts";
import { showPages } from "./pages.ts";
import { Talk, type Turn } from "./talk.ts";

const PROMPT = "> ";
const CONTINUATION = "... ";

/** `generate --chat` on a terminal without a question. */
export async function runConversation(flags: GenerateFlags, sparse: SparseOptions, run: CommandRun): Promise<void> {
  checkFlags(flags, run);
  const texts: NamedText[] = [];
  for (const path of flags.files) texts.push({ name: path, text: await readText(path, run, flags.lossy) });
  const model = await loadModel(flags, sparse, run, new Progress(run.output));
  await using _engine = model.engine;
  const encode = chatEncoder(flags, model.engine.tokenizer);
  const history = await History.open(run);
  using editor = new LineEditor(run, (line) => completeCommand(line, namesIn), history);
  const talk = new Talk(model, encode, flags, sparse, editor, run);
  for (const text of texts) talk.attach(text);
  const context = `context of ${plural(model.limit, "token")}`;
  run.output.note(`${model.name}, ${context}; /help lists the commands, Ctrl-D ends the conversation`);
  if (texts.length > 0) run.output.note(`The first question is about ${texts.map(({ name }) => name).join(", ")}`);
  await new Conversation(talk, editor, flags, run).loop();
}

function checkFlags(flags: GenerateFlags, { world }: CommandRun): void {
  const other = flags.json ? "--json" : flags.truncate !== undefined ? "--truncate" : undefined;
  if (other !== undefined) {
    throw new PagesiftError("usage", `${other} is not for conversations; give a prompt, or omit ${other}`);
  }
  if (world.stderr.isTerminal()) return;
  throw new PagesiftError(
    "usage",
    "A conversation requires a terminal on stderr; give a prompt, or do not redirect stderr",
  );
}

/** Names in a folder for completion, folders with a slash; none if it cannot be read. */
function namesIn(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder || ".")].map(({ name, isDirectory }) => name + (isDirectory ? "/" : "")).sort();
  } catch {
    return [];
  }
}

/** Reads questions and commands until the conversation ends. */
class Conversation {
  readonly #talk: Talk;
  readonly #editor: LineEditor;
  readonly #flags: GenerateFlags;
  readonly #run: CommandRun;

  constructor(talk: Talk, editor: LineEditor, flags: GenerateFlags, run: CommandRun) {
    this.#talk = talk;
    this.#editor = editor;
    this.#flags = flags;
    this.#run = run;
  }

  async loop(): Promise<void> {
    for (;;) {
      const text = await this.#read();
      if (text === undefined) return;
      try {
        const command = parseCommand(text);
        if (command?.name === "quit") return;
        if (command !== undefined) await this.#obey(command);
        else if (text.trim() !== "") this.#report(await this.#talk.ask(text));
      } catch (error) {
        if (!(error instanceof PagesiftError) || error.kind === "device") throw error;
        this.#run.output.clearStatus();
        this.#run.output.error(error.message);
      }
    }
  }

  /** A line with its continuation lines; undefined at the end. Ctrl-C starts again. */
  async #read(): Promise<string | undefined> {
    let text = "";
    for (;;) {
      const entry = await this.#editor.ask(text === "" ? PROMPT : CONTINUATION);
      if (entry === "ended") return undefined;
      if (entry === "cancelled") text = "";
      else if (entry.line.endsWith("\\")) text += entry.line.slice(0, -1) + "\n";
      else return text + entry.line;
    }
  }

  async #obey({ name, argument }: ConversationCommand): Promise<void> {
    const { output } = this.#run;
    const talk = this.#talk;
    switch (name) {
      case "help":
        return output.reply(commandHelp());
      case "file": {
        const text = await this.#readFile(argument);
        talk.attach({ name: argument, text });
        return output.note(`${argument}: ${plural(text.length, "character")} for the next question`);
      }
      case "system":
        talk.setSystem(argument);
        return output.note(argument === "" ? "No system message" : "New system message, from the next question on");
      case "retry":
        return this.#report(await talk.retry());
      case "pages":
        return await showPages(talk.lastTurn(), talk.model, this.#flags, this.#run);
      case "stats":
        return output.reply(this.#statsText(talk.lastTurn()));
      case "save":
        return this.#save(argument);
      case "load":
        return await this.#load(argument);
    }
  }

  #statsText({ answerIds, newTokens, ids }: Turn): string {
    const { engine, name } = this.#talk.model;
    const lines = statsLines(engine.stats, name, answerIds.length);
    const turn = `${formatCount(newTokens)} of ${plural(ids.length, "prompt token")} not in the turn before`;
    return [...lines, ["turn", turn]].map(([label = "", text]) => `${label.padEnd(9)}${text}\n`).join("");
  }

  async #readFile(path: string): Promise<string> {
    if (isStdin(path)) throw new PagesiftError("usage", `"${path}" is the terminal; name a file`);
    return await readText(path, this.#run, this.#flags.lossy);
  }

  #save(path: string): void {
    const target = targetFile("/save", path);
    if (holdsOtherText(target.path)) {
      throw new PagesiftError(
        "usage",
        `/save "${path}" would overwrite a file that is not a conversation; name a new one`,
      );
    }
    writeTarget(target, toLines(this.#talk.messages));
    this.#run.output.note(`Saved ${plural(this.#talk.messages.length, "message")} to ${path}`);
  }

  async #load(path: string): Promise<void> {
    const messages = parseLines(await this.#readFile(path), path);
    this.#talk.replace(messages);
    const turns = plural(countTurns(messages), "question");
    const open = messages.at(-1)?.role === "user" ? "; /retry answers the last one" : "";
    this.#run.output.note(`Loaded ${plural(messages.length, "message")} with ${turns} from ${path}${open}`);
  }

  /** After an answer: why it ended if it is not complete, then the context that is left. */
  #report(turn: Turn): void {
    const { output } = this.#run;
    const { limit, name, engine } = this.#talk.model;
    const why = endNote(turn, this.#flags);
    if (why !== undefined) output.note(why);
    const used = turn.ids.length + turn.answerIds.length;
    const { decodeTokens, decodeSeconds } = engine.stats;
    const left = `${formatCount(used)} of ${plural(limit, "token")}, ${formatCount(Math.max(0, limit - used))} left`;
    const all = this.#flags.verbose ? statsLines(engine.stats, name, turn.answerIds.length) : [];
    const context = ["context", `${left}; ${formatRate(decodeTokens, decodeSeconds)}`] as const;
    output.stats([...all.filter(([label]) => label !== "context"), context]);
  }
}

function endNote({ finish, answerIds }: Turn, { maxTokens }: GenerateFlags): string | undefined {
  if (finish === "length") {
    return `The answer ends at --max-tokens ${maxTokens}; start with a larger -n for longer answers`;
  }
  if (finish === "context") return "The answer ends where the context is full";
  if (finish === "kv_exhausted") return "The answer ends where the KV pool ran out of pages";
  if (finish === "aborted" && answerIds.length === 0) return "No answer; /retry asks again";
  return undefined;
}

/** Whether a file exists whose contents are not messages. */
function holdsOtherText(path: string): boolean {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
  try {
    return text !== "" && parseLines(text, path).length === 0;
  } catch {
    return true;
  }
}
