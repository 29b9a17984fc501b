import type { Paint } from "../inspect/text/paint.ts";
import type { World } from "./world.ts";

const PLAIN: Paint = { color: (_, text) => text, bold: (text) => text, dim: (text) => text };

function wrap(code: string, text: string): string {
  return text.trim() === "" ? text : `\x1b[${code}m${text}\x1b[0m`;
}

const COLORED: Paint = {
  color: (code, text) => wrap(`38;5;${code}`, text),
  bold: (text) => wrap("1", text),
  dim: (text) => wrap("2", text),
};

/** Colour where stdout is a terminal that takes it, unless NO_COLOR is set; `color` overrides both. */
export function paintFor(world: World, color: "auto" | "on" | "off"): Paint {
  const plain = Boolean(world.env("NO_COLOR")) || world.env("TERM") === "dumb" || !world.stdout.isTerminal();
  return color === "on" || color === "auto" && !plain ? COLORED : PLAIN;
}
