import type { PrefillProgress } from "../engine/types.ts";
import { format as formatBytes } from "@std/fmt/bytes";
import type { DownloadProgress } from "./engine_port.ts";
import { formatCount, formatRate, formatSeconds } from "../engine/text/format.ts";
import type { Output } from "./output.ts";

/** Milliseconds between updates of the progress line; faster updates only flicker. */
const REDRAW_MS = 100;

/** Shows the progress of a long step on one line of stderr, if it is a terminal. */
export class Progress {
  readonly #output: Output;
  #lastDrawn = -Infinity;

  constructor(output: Output) {
    this.#output = output;
  }

  /** Names a stage whose progress cannot be measured. */
  stage(text: string): void {
    this.#output.stage(text);
    this.#output.status(text);
  }

  download(progress: DownloadProgress): void {
    const { file, doneBytes, totalBytes } = progress;
    this.#draw(`Downloading ${file} ${formatBytes(doneBytes)}${totalBytes ? ` of ${formatBytes(totalBytes)}` : ""}`);
  }

  prefill(progress: PrefillProgress, prompt = "prompt"): void {
    const { doneTokens, reusedTokens, totalTokens, seconds } = progress;
    if (doneTokens < totalTokens) return this.#draw(prefillLine(progress, prompt));
    const reused = reusedTokens > 0 ? `, ${formatCount(reusedTokens)} of them reused,` : "";
    this.#output.clearStatus();
    this.#output.stage(`Read ${prompt}, ${formatCount(totalTokens)} tokens${reused} in ${formatSeconds(seconds)}`);
  }

  #draw(text: string): void {
    const now = performance.now();
    if (now - this.#lastDrawn < REDRAW_MS) return;
    this.#lastDrawn = now;
    this.#output.status(text);
  }
}

/** The prefill's state, as in `Reading prompt 25 %, 2,048 of 8,192 tokens, 1,024.0 tokens/s, 6.0 s left`. */
export function prefillLine(progress: PrefillProgress, prompt = "prompt"): string {
  const { doneTokens, reusedTokens, totalTokens, seconds } = progress;
  const readTokens = doneTokens - reusedTokens;
  const percent = Math.floor(100 * doneTokens / totalTokens);
  const counts = `${formatCount(doneTokens)} of ${formatCount(totalTokens)} tokens`;
  if (readTokens === 0 || seconds === 0) return `Reading ${prompt} ${percent} %, ${counts}`;
  const left = formatSeconds((totalTokens - doneTokens) * seconds / readTokens);
  return `Reading ${prompt} ${percent} %, ${counts}, ${formatRate(readTokens, seconds)}, ${left} left`;
}
