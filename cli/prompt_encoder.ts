import { PagesiftError } from "../engine/errors.ts";
import type { ChatMessage, TokenizerPort } from "./engine_port.ts";

/** How prompts become tokens. */
export interface PromptStyle {
  chat: boolean;
  raw: boolean;
  system?: string | undefined;
  thinking?: "on" | "off" | undefined;
}

/** Turns messages into the tokens that the model is given, up to the start of its answer. */
export type ChatEncoder = (messages: readonly ChatMessage[]) => number[];

/** Turns a prompt's text into the tokens that the model is given. */
export interface PromptEncoder {
  (text: string): number[];
  /** Whether special tokens spelled out in the text are encoded as such. */
  readonly parsesSpecial: boolean;
}

/** Refuses styles that exclude each other, before a model is loaded. */
export function checkStyle(style: PromptStyle): void {
  if (style.thinking !== undefined && !usesTemplate(style)) {
    throw new PagesiftError("usage", `--thinking ${style.thinking} is for the chat template; add --chat`);
  }
  if (!style.raw || !usesTemplate(style)) return;
  const other = style.chat ? "--chat" : "--system";
  throw new PagesiftError(
    "usage",
    `--raw and ${other} exclude each other: one skips the chat template, the other uses it`,
  );
}

/**
 * The encoder of a style. Special tokens spelled out in the text stay text, so that a document cannot end the turn. `--raw`
 * encodes them as tokens, for prompts that already contain a template.
 */
export function promptEncoder(style: PromptStyle, tokenizer: TokenizerPort): PromptEncoder {
  if (!usesTemplate(style)) {
    const options = { addSpecialTokens: !style.raw, parseSpecial: style.raw };
    return Object.assign((text: string) => tokenizer.encode(text, options), { parsesSpecial: style.raw });
  }
  const encodeChat = chatEncoder(style, tokenizer);
  const system: ChatMessage[] = style.system === undefined ? [] : [{ role: "system", content: style.system }];
  const encode = (text: string): number[] => encodeChat([...system, { role: "user", content: text }]);
  return Object.assign(encode, { parsesSpecial: false });
}

/** The encoder of conversations. @throws {PagesiftError} of kind "usage" if the model cannot do what the style says */
export function chatEncoder({ thinking }: PromptStyle, tokenizer: TokenizerPort): ChatEncoder {
  if (!tokenizer.hasChatTemplate) {
    throw new PagesiftError("usage", "The model has no chat template; omit --chat and --system");
  }
  if (thinking !== undefined && !tokenizer.switchesThinking) {
    throw new PagesiftError("usage", "The chat template of the model has no switch for thinking; omit --thinking");
  }
  const options = { addGenerationPrompt: true, ...thinking !== undefined && { enableThinking: thinking === "on" } };
  return (messages) => tokenizer.encodeChat(messages, options);
}

/** How a prompt was encoded, for the user to see. */
export function promptStyleName(style: PromptStyle): string {
  return usesTemplate(style) ? "in the chat template" : style.raw ? "raw" : "without a chat template";
}

/** Whether a style asks for the chat template. */
export function usesTemplate(style: PromptStyle): boolean {
  return style.chat || style.system !== undefined;
}
