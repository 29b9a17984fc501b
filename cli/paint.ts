import type { Paint } from "../inspect/text/paint.ts";
import type { Sink, World } from "./world.ts";

/** A colour of a text, or none. */
export type Style = (text: string) => string;

/**
 * The style with this code of ECMA-48 (SGR); blank text stays plain. The standard library cannot turn colour on under NO_COLOR, but
 * `--color on` must.
 */
function style(code: string): Style {
  return (text) => text.trim() === "" ? text : `\x1b[${code}m${text}\x1b[0m`;
}

export function plain(text: string): string {
  return text;
}

export const [bold, dim, red, yellow] = ["1", "2", "31", "33"].map(style) as [Style, Style, Style, Style];

const PLAIN: Paint = { color: (_, text) => text, bold: plain, dim: plain };
const COLORED: Paint = { color: (code, text) => style(`38;5;${code}`)(text), bold, dim };

/** Whether a sink gets colour: by default on a colour terminal, unless NO_COLOR is set; `color` overrides both. */
export function takesColor(world: World, sink: Sink, color: "auto" | "on" | "off"): boolean {
  if (color !== "auto") return color === "on";
  return sink.isTerminal() && !world.env("NO_COLOR") && world.env("TERM") !== "dumb";
}

/** Colour on a sink, or none. */
export function paintFor(world: World, sink: Sink, color: "auto" | "on" | "off"): Paint {
  return takesColor(world, sink, color) ? COLORED : PLAIN;
}
