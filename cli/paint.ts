import { bold, dim, rgb8, setColorEnabled } from "@std/fmt/colors";
import type { Paint } from "../inspect/text/paint.ts";
import type { World } from "./world.ts";

const PLAIN: Paint = { color: (_, text) => text, bold: (text) => text, dim: (text) => text };

/** Blanks need no colour. */
function visible(style: (text: string) => string): (text: string) => string {
  return (text) => text.trim() === "" ? text : style(text);
}

const COLORED: Paint = {
  color: (code, text) => visible((one) => rgb8(one, code))(text),
  bold: visible(bold),
  dim: visible(dim),
};

/** Colour where stdout is a terminal that takes it, unless NO_COLOR is set; `color` overrides both. */
export function paintFor(world: World, color: "auto" | "on" | "off"): Paint {
  const plain = Boolean(world.env("NO_COLOR")) || world.env("TERM") === "dumb" || !world.stdout.isTerminal();
  if (color === "off" || color === "auto" && plain) return PLAIN;
  // The library looks at NO_COLOR alone, which is decided here already.
  setColorEnabled(true);
  return COLORED;
}
