/** What a terminal sends before and after pasted text, once bracketed paste is on. */
const START = "\x1b[200~";
const END = "\x1b[201~";

/** Switches bracketed paste on and off. */
export const PASTE_ON = "\x1b[?2004h";
export const PASTE_OFF = "\x1b[?2004l";

/** Pasted text up to this length and without line breaks is typed into the line. */
const MAX_TYPED = 200;

/** Keeps long pasted text out of the line that is edited: the line holds a short name for it. */
export class Pastes {
  readonly #texts: string[] = [];
  /** Input that is not complete: the text of a paste so far, or the beginning of a marker. */
  #held = "";
  #inside = false;

  /** The keys of a piece of input, with every paste replaced by its text if that is short, or by its name. */
  filter(input: string): string {
    let rest = this.#held + input;
    let keys = "";
    for (;;) {
      const marker = this.#inside ? END : START;
      const at = rest.indexOf(marker);
      if (at < 0) break;
      const before = rest.slice(0, at);
      keys += this.#inside ? this.#add(before) : before;
      rest = rest.slice(at + marker.length);
      this.#inside = !this.#inside;
    }
    const complete = this.#inside ? 0 : rest.length - beginningLength(rest, START);
    this.#held = rest.slice(complete);
    return keys + rest.slice(0, complete);
  }

  #add(pasted: string): string {
    const text = pasted.replaceAll(/\r\n?/g, "\n");
    if (!text.includes("\n") && text.length <= MAX_TYPED) return text.replaceAll("\t", " ");
    this.#texts.push(text);
    return nameOf(this.#texts.length, text);
  }

  /** A line with the texts in the place of their names. */
  expand(line: string): string {
    return line.replaceAll(/\[paste (\d+): \d+ lines?\]/g, (name, number) => {
      const text = this.#texts[Number(number) - 1];
      return text !== undefined && nameOf(Number(number), text) === name ? text : name;
    });
  }
}

function nameOf(number: number, text: string): string {
  const lines = text.replace(/\n$/, "").split("\n").length;
  return `[paste ${number}: ${lines} ${lines === 1 ? "line" : "lines"}]`;
}

/** Length of the longest end of a text that the marker begins with. */
function beginningLength(text: string, marker: string): number {
  for (let length = Math.min(text.length, marker.length - 1); length > 0; length--) {
    if (marker.startsWith(text.slice(-length))) return length;
  }
  return 0;
}
