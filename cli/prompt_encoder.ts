import { PagesiftError } from "../engine/errors.ts";
import type { ChatMessage, TokenizerPort } from "./engine_port.ts";

/** How prompts become tokens. */
export interface PromptStyle {
  chat: boolean;
  raw: boolean;
  system?: string | undefined;
}

/** Turns a prompt's text into the tokens that the model is given. */
export interface PromptEncoder {
  (text: string): number[];
  /** Whether special tokens spelled out in the text are encoded as such. */
  readonly parsesSpecial: boolean;
}

/** Refuses styles that exclude each other, before a model is loaded. */
export function checkStyle(style: PromptStyle): void {
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
  if (!tokenizer.hasChatTemplate) {
    throw new PagesiftError("usage", "The model has no chat template; omit --chat and --system");
  }
  const system: ChatMessage[] = style.system === undefined ? [] : [{ role: "system", content: style.system }];
  const encode = (text: string): number[] =>
    tokenizer.encodeChat([...system, { role: "user", content: text }], { addGenerationPrompt: true });
  return Object.assign(encode, { parsesSpecial: false });
}

/** How a prompt was encoded, for the user to see. */
export function promptStyleName(style: PromptStyle): string {
  return usesTemplate(style) ? "in the chat template" : style.raw ? "raw" : "without a chat template";
}

function usesTemplate(style: PromptStyle): boolean {
  return style.chat || style.system !== undefined;
}
