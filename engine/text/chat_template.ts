import { PagesiftError, reasonOf } from "../errors.ts";
import { isJsonObject, type JsonObject, refuseLinkOut, shorten, statOrUndefined } from "../folder/json_file.ts";
import { Budget, DEFAULT_TEMPLATE_LIMITS, type TemplateLimits } from "./jinja/budget.ts";
import { globalScope } from "./jinja/globals.ts";
import { checkNames, Interpreter, type Scope } from "./jinja/interpreter.ts";
import { parseTemplate } from "./jinja/syntax.ts";
import type { Statement } from "./jinja/tree.ts";
import { Dict, List } from "./jinja/values.ts";

/** One turn of a conversation. */
export interface ChatMessage {
  /** Who speaks, mostly "system", "user" or "assistant"; the template decides what is legal. */
  role: string;
  /** The text of the turn. */
  content: string;
}

const RAW_HINT = "use --raw to pass the prompt as it is";
/** Characters; real templates have tens of thousands at most. */
const MAX_SOURCE_LENGTH = 1 << 18;

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
  const listed = pickTemplate(config.chat_template, folder);
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

/** `chat_template` is a template, or a list of named ones, of which "default" is taken. */
function pickTemplate(value: unknown, folder: string): string | undefined {
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) return undefined;
  const entries = value.filter((entry) => isJsonObject(entry) && typeof entry.template === "string");
  const chosen = entries.find((entry) => entry.name === "default");
  if (chosen || entries.length === 0) return chosen?.template;
  throw new PagesiftError(
    "model",
    `"${folder}/tokenizer_config.json" has chat templates, but none is named "default"; ${RAW_HINT}`,
  );
}

/** A Jinja template that turns a conversation into the text a model was trained on. It behaves as in transformers 5. */
export class ChatTemplate {
  readonly #limits: TemplateLimits;
  #program: Statement[] | undefined;

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
   * The text of `messages`; `variables` are visible to the template beside those of the constructor. Throws a "usage" error if the template itself refuses them, and a "model" error for a
   * template that is invalid, uses unsupported features, or exceeds the limits on time and length.
   */
  render(
    messages: readonly ChatMessage[],
    addGenerationPrompt: boolean,
    variables: Readonly<Record<string, boolean>> = {},
  ): string {
    try {
      this.#program ??= parse(this.source);
      const inputLength = messages.reduce((sum, message) => sum + message.content.length, 0);
      const budget = new Budget(this.#limits, inputLength);
      return new Interpreter(budget).render(this.#program, this.#scope(messages, addGenerationPrompt, variables));
    } catch (error) {
      if (error instanceof PagesiftError) throw error;
      const reason = shorten(reasonOf(error), 200);
      throw new PagesiftError("model", `Cannot use the chat template of "${this.origin}": ${reason}; ${RAW_HINT}`, {
        cause: error,
      });
    }
  }

  #scope(
    messages: readonly ChatMessage[],
    addGenerationPrompt: boolean,
    variables: Readonly<Record<string, boolean>>,
  ): Scope {
    const scope = globalScope(refuse);
    for (const [name, value] of Object.entries({ ...this.variables, ...variables })) {
      if (value !== undefined) scope.set(name, value);
    }
    scope.set("messages", new List(messages.map((message) => Dict.of(Object.entries(message)))));
    scope.set("add_generation_prompt", addGenerationPrompt);
    // The transformers library passes None for both, and templates test for that.
    scope.set("tools", null);
    scope.set("documents", null);
    return scope;
  }
}

function parse(source: string): Statement[] {
  if (source.length > MAX_SOURCE_LENGTH) throw new Error(`more than ${MAX_SOURCE_LENGTH} characters`);
  const program = parseTemplate(source);
  checkNames(program);
  return program;
}

function refuse(reason: string): never {
  throw new PagesiftError(
    "usage",
    `The chat template refuses the conversation: ${shorten(reason, 200)}; change it, or ${RAW_HINT}`,
  );
}
