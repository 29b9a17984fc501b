import { PagesiftError } from "../engine/errors.ts";
import type { GenerateRequest } from "../engine/types.ts";
import type { BatchAnswers } from "./batch_answers.ts";
import type { CommandRun } from "./command_run.ts";
import { ownFields, parsePromptLine, type PromptLine } from "./jsonl.ts";
import { MAX_BYTES, tooLong } from "./read_text.ts";
import { decodeText } from "./text_decode.ts";

const PLACE = "stdin";
const LINE_FEED = 10;

/**
 * The requests of the lines on stdin as they arrive. A line that cannot be answered is refused among the answers, and the next line
 * follows.
 */
export async function* arrivingRequests(
  requestOf: (line: PromptLine, index: number) => GenerateRequest,
  answers: BatchAnswers,
  lossy: boolean,
  run: CommandRun,
): AsyncGenerator<GenerateRequest> {
  if (run.world.stdin.isTerminal()) {
    run.output.note('Each line is a prompt such as {"prompt": "..."}; Ctrl-D ends them');
  }
  let number = 0;
  for await (const bytes of readLines(run)) {
    const place = `${PLACE}:${++number}`;
    let text = "";
    try {
      text = decodeText(bytes, place, lossy).text;
      if (text.trim() === "") continue;
      const line = parsePromptLine(text, place, lossy);
      const request = requestOf(line, answers.count);
      answers.add(place, line.own);
      yield request;
    } catch (error) {
      if (!(error instanceof PagesiftError) || error.kind !== "usage" && error.kind !== "context") throw error;
      answers.refuse(place, ownFields(text), error);
    }
  }
}

/** The lines of stdin without their ends; the last one may have none. */
async function* readLines({ world, interrupt }: CommandRun): AsyncGenerator<Uint8Array> {
  const buffer = new Uint8Array(64 * 1024);
  let parts: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const count = await interrupt.race(world.stdin.read(buffer));
    if (count === null) break;
    let rest = buffer.slice(0, count);
    for (let end = rest.indexOf(LINE_FEED); end >= 0; end = rest.indexOf(LINE_FEED)) {
      yield joined([...parts, rest.subarray(0, end)]);
      [parts, length, rest] = [[], 0, rest.subarray(end + 1)];
    }
    parts.push(rest);
    length += rest.length;
    if (length > MAX_BYTES) throw tooLong("A line on stdin");
  }
  if (length > 0) yield joined(parts);
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
