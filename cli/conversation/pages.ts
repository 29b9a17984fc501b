import denoConfig from "../../deno.json" with { type: "json" };
import { Engine } from "../../engine/engine.ts";
import { Aborted } from "../../engine/event_loop.ts";
import { engineError } from "../../engine/memory.ts";
import { formatCount, formatTenths, plural } from "../../engine/text/format.ts";
import { locateParts, type Span } from "../../inspect/prompt_text.ts";
import { record } from "../../inspect/record.ts";
import type { Facts, Recording } from "../../inspect/recording.ts";
import { makeReport } from "../../inspect/report.ts";
import { passageLines } from "../../inspect/text/passages.ts";
import type { CommandRun } from "../command_run.ts";
import { TYPED_NAME } from "../input.ts";
import type { LoadedModel } from "../load.ts";
import { samplingOf, sparseOf } from "../options/engine_options.ts";
import type { GenerateFlags } from "../options/generate.ts";
import { bold, paintFor, takesColor } from "../paint.ts";
import { Progress } from "../progress.ts";
import { commandLine } from "../system_world.ts";
import type { Message } from "./messages.ts";
import type { Turn } from "./talk.ts";

/** Pages to show. */
const TOP = 5;

/**
 * `/pages`: the passages that a turn's answer read. Reads the answer again, over a copy of the KV cache, because the steps of an answer
 * are not observed while it is generated.
 */
export async function showPages(turn: Turn, model: LoadedModel, flags: GenerateFlags, run: CommandRun): Promise<void> {
  const { engine, name } = model;
  if (!(engine instanceof Engine)) throw new Error("/pages requires the real engine");
  const { output, world } = run;
  const progress = new Progress(output);
  using scope = run.interrupt.scope();
  try {
    using inspected = await record(engine, {
      ...{ ids: turn.ids, answerIds: turn.answerIds, prompt: "", parts: [], compare: [] },
      steps: Math.max(1, turn.answerIds.length - 1),
      sampling: samplingOf(flags),
      sparse: sparseOf(flags),
      signal: scope.signal,
      onPrefill: (state) => progress.prefill(state, "conversation again"),
    }, { version: denoConfig.version, model: name, command: commandLine(), date: new Date().toISOString() });
    const recording = withSources(inspected.recording, turn.messages);
    const highlight = takesColor(world, world.stderr, flags.color) ? bold : "quotes";
    const lines = passageLines(makeReport(recording, {}), {
      by: "mass",
      top: TOP,
      width: world.columns(),
      paint: paintFor(world, world.stderr, flags.color),
      highlight,
    });
    output.reply([summary(recording.facts), "", ...lines].join("\n") + "\n");
  } catch (error) {
    if (!(error instanceof Aborted)) throw engineError(error);
  }
  output.clearStatus();
}

/** What the answer read, in a line. */
function summary({ selectedSteps, pagesRead, pagesDense, steps, pages, pageSize }: Facts): string {
  const context = `${plural(pages, "page")} of ${pageSize} tokens`;
  if (selectedSteps === 0) return `Every step read all ${context}. The passages with the most attention:`;
  const share = formatTenths(100 * pagesRead / pagesDense);
  return `${formatCount(selectedSteps)} of ${
    plural(steps, "step")
  } chose among ${context} and read ${share} % of them. ` +
    "The passages with the most attention:";
}

/** A recording whose text names the messages and files that it comes from. */
function withSources(recording: Recording, messages: readonly Message[]): Recording {
  const { text, tokenEnds, spans: [answer] } = recording.text;
  const spans = sourceSpans(text.slice(0, answer?.start), messages);
  return { ...recording, text: { text, tokenEnds, spans: [...spans, ...answer ? [answer] : []] } };
}

/** Where the messages of a conversation and their parts are in the text of its tokens. */
export function sourceSpans(text: string, messages: readonly Message[]): Span[] {
  const spans: Span[] = [];
  let from = 0;
  let question = 0;
  for (const { role, content, parts = [{ name: TYPED_NAME, start: 0, end: content.length }] } of messages) {
    if (role === "user") question++;
    const own = role === "user"
      ? `<question ${question}>`
      : role === "assistant"
      ? `<answer ${question}>`
      : `<${role}>`;
    const named = parts.map((part) => part.name === TYPED_NAME ? { ...part, name: own } : part);
    const found = locateParts(text.slice(from), content, named).spans;
    spans.push(...found.map((span) => ({ ...span, start: from + span.start, end: from + span.end })));
    from = spans.at(-1)?.end ?? from;
  }
  return spans;
}
