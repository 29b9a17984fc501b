import { PagesiftError } from "../../engine/errors.ts";
import { commonPrefix } from "../../engine/pages/prompt_order.ts";
import { withSamplingDefaults } from "../../engine/sample/sampling_defaults.ts";
import { formatCount, plural } from "../../engine/text/format.ts";
import type { FinishReason, GenerateOptions, PrefillProgress, SparseOptions } from "../../engine/types.ts";
import { collectAnswer, randomSeed } from "../answer.ts";
import type { CommandRun } from "../command_run.ts";
import { joinTexts, type NamedText, TYPED_NAME } from "../input.ts";
import type { LoadedModel } from "../load.ts";
import { samplingOf, verifyOf } from "../options/engine_options.ts";
import type { GenerateFlags } from "../options/generate.ts";
import { Progress } from "../progress.ts";
import type { ChatEncoder } from "../prompt_encoder.ts";
import type { LineEditor } from "./line_editor.ts";
import { countTurns, type Message, splitLastTurn, withoutOldestTurn, withSystem } from "./messages.ts";

/** A question and its answer as the model saw them. */
export interface Turn {
  /** The conversation up to the question. */
  messages: readonly Message[];
  /** Its tokens, and how many of them differ from the tokens of the turn before. */
  ids: readonly number[];
  newTokens: number;
  answerIds: readonly number[];
  finish: FinishReason;
}

/** The messages of a conversation and the model that answers them. */
export class Talk {
  #messages: Message[];
  /** Texts that belong to the next question. */
  #attached: NamedText[] = [];
  /** A question that got no answer. */
  #unanswered: Message | undefined;
  #lastTurn: Turn | undefined;
  #numAnswers = 0;
  readonly #encode: ChatEncoder;
  readonly #flags: GenerateFlags;
  readonly #sparse: SparseOptions;
  readonly #editor: LineEditor;
  readonly #run: CommandRun;

  constructor(
    readonly model: LoadedModel,
    encode: ChatEncoder,
    flags: GenerateFlags,
    sparse: SparseOptions,
    editor: LineEditor,
    run: CommandRun,
  ) {
    this.#encode = encode;
    this.#flags = flags;
    this.#sparse = sparse;
    this.#editor = editor;
    this.#run = run;
    this.#messages = withSystem([], flags.system ?? "");
  }

  get messages(): readonly Message[] {
    return this.#unanswered === undefined ? this.#messages : [...this.#messages, this.#unanswered];
  }

  attach(text: NamedText): void {
    this.#attached.push(text);
  }

  setSystem(text: string): void {
    this.#messages = withSystem(this.#messages, text);
  }

  /** Continues another conversation. A question at its end waits for {@link retry}. */
  replace(messages: readonly Message[]): void {
    const open = messages.at(-1)?.role === "user";
    this.#messages = open ? messages.slice(0, -1) : [...messages];
    this.#unanswered = open ? messages.at(-1) : undefined;
    this.#lastTurn = undefined;
  }

  /** @throws {PagesiftError} of kind "usage" before the first answer */
  lastTurn(): Turn {
    if (this.#lastTurn) return this.#lastTurn;
    throw new PagesiftError("usage", "There is no answer yet; ask a question first");
  }

  /** Answers a question, with the attached texts before it. */
  async ask(text: string): Promise<Turn> {
    const { prompt, parts } = joinTexts([...this.#attached, { name: TYPED_NAME, text }]);
    this.#attached = [];
    return await this.#answer({ role: "user", content: prompt, parts });
  }

  /** Answers the last question again, or the one that got no answer. */
  async retry(): Promise<Turn> {
    if (this.#unanswered) return await this.#answer(this.#unanswered);
    const { before, question } = splitLastTurn(this.#messages);
    if (!question) throw new PagesiftError("usage", "There is no question to answer again");
    this.#messages = before;
    return await this.#answer(question);
  }

  async #answer(question: Message): Promise<Turn> {
    this.#unanswered = question;
    const ids = await this.#fit(question);
    using scope = this.#run.interrupt.scope();
    const { output } = this.#run;
    const streams = !this.#flags.noStream;
    const options = this.#options(scope.signal);
    const answer = await collectAnswer(ids, options, this.model, this.#run, (text) => streams && output.answer(text));
    if (!streams) output.answer(answer.text);
    if (answer.text !== "") output.endAnswer();
    const before = this.#lastTurn === undefined ? [] : [...this.#lastTurn.ids, ...this.#lastTurn.answerIds];
    const messages = [...this.#messages, question];
    const newTokens = ids.length - commonPrefix(before, ids);
    this.#lastTurn = { messages, ids, newTokens, answerIds: answer.ids, finish: answer.finish };
    this.#run.interrupt.signal.throwIfAborted();
    if (answer.ids.length > 0) {
      this.#messages = [...messages, { role: "assistant", content: answer.text }];
      this.#unanswered = undefined;
    }
    return this.#lastTurn;
  }

  #options(signal: AbortSignal): GenerateOptions {
    const { output } = this.#run;
    const seed = this.#flags.seed === undefined ? randomSeed() : (this.#flags.seed + this.#numAnswers++) % 2 ** 32;
    const sampling = withSamplingDefaults(this.model.engine.sampling, { ...samplingOf(this.#flags), seed });
    const progress = new Progress(output);
    const onPrefill = (state: PrefillProgress): void => progress.prefill(state, "conversation");
    return { ...sampling, sparse: this.#sparse, ...verifyOf(this.#flags), signal, onPrefill };
  }

  /**
   * The tokens of the conversation with a question. Offers to forget the oldest turns if they leave too little of the context.
   *
   * @throws {PagesiftError} of kind "context" if the question does not fit
   */
  async #fit(question: Message): Promise<number[]> {
    const { limit } = this.model;
    const encode = (messages: readonly Message[]): number[] => this.#encode([...messages, question]);
    const ids = encode(this.#messages);
    const most = limit - Math.min(this.#flags.maxTokens, Math.floor(limit / 2));
    if (ids.length <= most) return ids;
    let [shorter, shorterIds] = [this.#messages, ids];
    while (shorterIds.length > most && countTurns(shorter) > 0) {
      shorter = withoutOldestTurn(shorter);
      shorterIds = encode(shorter);
    }
    if (shorterIds.length > limit) throw tooLong("The question alone", shorterIds.length, limit);
    const forgotten = countTurns(this.#messages) - countTurns(shorter);
    if (forgotten > 0 && await this.#mayForget(forgotten, ids.length)) {
      this.#messages = shorter;
      return shorterIds;
    }
    if (ids.length > limit) throw tooLong("The conversation", ids.length, limit);
    return ids;
  }

  async #mayForget(turns: number, tokens: number): Promise<boolean> {
    const { limit } = this.model;
    const full = `The conversation has ${formatCount(tokens)} tokens and the context ${formatCount(limit)}`;
    this.#run.output.reply(`${full}: little or no room is left for an answer.\n`);
    const which = turns === 1 ? "oldest turn" : `${formatCount(turns)} oldest turns`;
    const entry = await this.#editor.ask(`Forget the ${which}? [Y/n] `);
    return typeof entry === "object" && /^\s*(y(es)?)?\s*$/i.test(entry.line);
  }
}

function tooLong(what: string, tokens: number, limit: number): PagesiftError {
  const counts = `${plural(tokens, "token")}, limit ${formatCount(limit)}`;
  return new PagesiftError(
    "context",
    `${what} is longer than the context: ${counts}; /retry asks again, -c sets the context`,
  );
}
