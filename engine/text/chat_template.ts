import { Environment, parse, tokenize } from "@huggingface/jinja";
import { PagesiftError, reasonOf } from "../errors.ts";
import { isJsonObject, type JsonObject, refuseLinkOut, shorten, statOrUndefined } from "../folder/json_file.ts";
import { DEFAULT_TEMPLATE_LIMITS, GuardedInterpreter, type TemplateLimits } from "./template_guard.ts";

/** One turn of a conversation. */
export interface ChatMessage {
  role: string;
  content: string;
}

const RAW_HINT = "use --raw to pass the prompt as it is";
/** Characters; real templates have tens of thousands at most. */
const MAX_SOURCE_LENGTH = 1 << 18;
/** Python's sandbox, for which templates are written, has the same limit. */
const MAX_RANGE = 100_000;

/**
 * The chat template of a model folder: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`.
 * `variables` are the special tokens by name. Throws a "model" error for a template that cannot be read.
 */
export async function findChatTemplate(
  folder: string,
  config: JsonObject,
  variables: Readonly<Record<string, string | undefined>>,
): Promise<ChatTemplate | undefined> {
  const file = `${folder}/chat_template.jinja`;
  const source = await readTemplate(file);
  if (source !== undefined) return new ChatTemplate(source, file, variables);
  const listed = pickTemplate(config.chat_template);
  return listed === undefined ? undefined : new ChatTemplate(listed, `${folder}/tokenizer_config.json`, variables);
}

async function readTemplate(file: string): Promise<string | undefined> {
  const info = await statOrUndefined(file);
  if (info === undefined) return undefined;
  await refuseLinkOut(file);
  if (!info.isFile || info.size > 4 * MAX_SOURCE_LENGTH) {
    throw new PagesiftError(
      "model",
      `Cannot read "${file}": expected a file of at most ${4 * MAX_SOURCE_LENGTH} bytes`,
    );
  }
  try {
    return await Deno.readTextFile(file);
  } catch (cause) {
    throw new PagesiftError("model", `Cannot read "${file}": ${reasonOf(cause)}`, { cause });
  }
}

/** `chat_template` is a template, or a list of named ones. */
function pickTemplate(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) return undefined;
  const entries = value.filter((entry) => isJsonObject(entry) && typeof entry.template === "string");
  return (entries.find((entry) => entry.name === "default") ?? entries[0])?.template;
}

/** A Jinja template that turns a conversation into the text a model was trained on. */
export class ChatTemplate {
  readonly #limits: TemplateLimits;
  #program: ReturnType<typeof parse> | undefined;

  /** `origin` is the file, for messages; `variables` are visible to the template, undefined ones not at all. */
  constructor(
    readonly source: string,
    readonly origin: string,
    readonly variables: Readonly<Record<string, string | undefined>> = {},
    limits: Partial<TemplateLimits> = {},
  ) {
    this.#limits = { ...DEFAULT_TEMPLATE_LIMITS, ...limits };
  }

  /**
   * The text of `messages`. Throws a "usage" error where the template itself refuses them, and a "model" error for a
   * template that is broken or exceeds the limits on time, memory and output.
   */
  render(messages: readonly ChatMessage[], addGenerationPrompt: boolean): string {
    try {
      this.#program ??= parseTemplate(this.source);
      const inputLength = messages.reduce((sum, message) => sum + message.content.length, 0);
      const environment = makeEnvironment(this.variables, messages, addGenerationPrompt);
      return new GuardedInterpreter(environment, this.#limits, inputLength).render(this.#program);
    } catch (error) {
      if (error instanceof PagesiftError) throw error;
      const reason = shorten(reasonOf(error), 200);
      throw new PagesiftError("model", `Cannot use the chat template of "${this.origin}": ${reason}; ${RAW_HINT}`, {
        cause: error,
      });
    }
  }
}

/** White space as transformers handles it: `trim_blocks` and `lstrip_blocks`. */
function parseTemplate(source: string): ReturnType<typeof parse> {
  if (source.length > MAX_SOURCE_LENGTH) throw new Error(`more than ${MAX_SOURCE_LENGTH} characters`);
  // The parser's search for one tag is quadratic in a run of white space.
  if (/\s{257}/.test(source)) throw new Error("more than 256 spaces or line ends in a row");
  return parse(tokenize(source, { trim_blocks: true, lstrip_blocks: true }));
}

function makeEnvironment(
  variables: Readonly<Record<string, string | undefined>>,
  messages: readonly ChatMessage[],
  addGenerationPrompt: boolean,
): Environment {
  const environment = new Environment();
  for (const [name, value] of Object.entries(variables)) if (value !== undefined) environment.set(name, value);
  environment.set("messages", messages);
  environment.set("add_generation_prompt", addGenerationPrompt);
  // The transformers library passes None for both, and templates test for that.
  environment.set("tools", null);
  environment.set("documents", null);
  for (const [name, value] of Object.entries(GLOBALS)) environment.set(name, value);
  return environment;
}

const GLOBALS = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
  range,
  raise_exception: refuse,
  strftime_now: (format: unknown): string => formatTime(new Date(), String(format)),
};

function refuse(reason: unknown): never {
  const text = shorten(String(reason), 200);
  throw new PagesiftError("usage", `The chat template refuses the conversation: ${text}; change it, or ${RAW_HINT}`);
}

function range(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length <= MAX_RANGE) return Array.from({ length }, (_, index) => start + index * step);
  throw new Error(`range() of ${length} numbers, expected at most ${MAX_RANGE}`);
}

const MONTHS = "January February March April May June July August September October November December".split(" ");

/** Python's `strftime` for the fields that templates use: English and in local time. */
function formatTime(time: Date, format: string): string {
  const two = (value: number): string => String(value).padStart(2, "0");
  const month = MONTHS[time.getMonth()]!;
  const fields: Record<string, string> = {
    "%Y": String(time.getFullYear()),
    "%m": two(time.getMonth() + 1),
    "%d": two(time.getDate()),
    "%B": month,
    "%b": month.slice(0, 3),
    "%H": two(time.getHours()),
    "%M": two(time.getMinutes()),
    "%S": two(time.getSeconds()),
    "%%": "%",
  };
  return format.replace(/%[A-Za-z%]/g, (field) => fields[field] ?? field);
}
