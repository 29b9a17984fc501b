import { basename } from "@std/path";
import { proseIds } from "../../bench/documents.ts";
import { modelSha256 } from "../../bench/model_hash.ts";
import { provenanceOf } from "../../bench/provenance.ts";
import { benchQuality, type FileTask, proseNeed } from "../../bench/quality.ts";
import { checkQualityContext, isRuler, planQuality, type QualityPlan } from "../../bench/quality_plan.ts";
import { LOSS_BLOCK } from "../../bench/quality_tally.ts";
import { fileDocuments, parseTaskLines } from "../../bench/task_file.ts";
import type { EncodePrompt, QuestionedText } from "../../bench/trials.ts";
import { Engine } from "../../engine/engine.ts";
import { PagesiftError, reasonOf } from "../../engine/errors.ts";
import { openModelSource } from "../../engine/source/model_source.ts";
import { formatCount, plural } from "../../engine/text/format.ts";
import type { Tokenizer } from "../../engine/text/tokenizer.ts";
import { adapterNotes, prepareFiles, printRun, progressShower } from "./run.ts";
import { commandLine } from "../system_world.ts";
import { findModel } from "../load.ts";
import type { BenchQualityFlags } from "../options/bench_quality.ts";
import { promptEncoder, promptStyleName } from "../prompt_encoder.ts";
import { Progress } from "../progress.ts";
import { promptCacheOf } from "../prompt_cache.ts";
import type { CommandRun } from "../command_run.ts";
import { shippedPath } from "../shipped.ts";

/** `pagesift bench quality`. */
export async function runQuality(
  flags: BenchQualityFlags,
  words: readonly string[],
  session: CommandRun,
): Promise<void> {
  const { plot } = prepareFiles({ ...flags, peers: [] }, words, "quality");
  const plan = planQuality(flags);
  const text = readProse(flags.text);
  const files = plan.files.map((file) => ({ file, lines: parseTaskLines(file, readText("--task", file)) }));
  const { folder, name } = await findModel(flags, session, new Progress(session.output));
  const source = await openModelSource(folder, flags.adapter);
  checkQualityContext(plan, source.config.maxContext);
  const tokenizer = await source.tokenizer({ vocabSize: source.config.vocabSize });
  const encode = promptEncoding(flags, tokenizer);
  const material = session.interrupt.blocking(() => ({
    prose: proseIds(tokenizer, flags.text ?? "the shipped text", text, proseNeed(plan)),
    encode,
    files: files.map(({ file, lines }) => fileTask(file, lines, encode, plan, source.config.maxContext, session)),
  }));
  session.output.status(`Loading ${name}`);
  await using engine = await Engine.load(folder, {
    device: flags.device,
    weights: flags.weights,
    kvType: flags.kvType,
    ...promptCacheOf(flags, name, session),
    ...flags.adapter !== undefined && { adapter: flags.adapter },
    ...flags.threads !== undefined && { threads: flags.threads },
  });
  session.output.notices(engine.notices);
  const provenance = await provenanceOf(engine.describeDevice(), {
    ...{ command: commandLine(), model: basename(name), modelSha256: await modelSha256(folder) },
    notes: notesOf(plan, flags),
  });
  const hooks = { signal: session.interrupt.signal, onProgress: progressShower(session) };
  const cells = benchQuality(engine, basename(name), plan, material, hooks);
  await printRun({ subject: "quality", provenance, peers: [], plot, cells }, flags, session);
}

function readProse(file: string | undefined): string {
  if (file !== undefined) return readText("--text", file);
  try {
    return Deno.readTextFileSync(shippedPath("examples/war_of_the_worlds.txt"));
  } catch (error) {
    throw new PagesiftError(
      "usage",
      `The shipped text is not part of this installation: ${reasonOf(error)}; pass a text file with --text`,
    );
  }
}

function readText(flag: string, file: string): string {
  try {
    return Deno.readTextFileSync(file);
  } catch (error) {
    throw new PagesiftError("usage", `${flag} "${file}" cannot be read: ${reasonOf(error)}; pass a text file`);
  }
}

/** The model continues the beginning of the answer, in its own turn if there are turns. */
function promptEncoding({ chat }: BenchQualityFlags, tokenizer: Tokenizer): EncodePrompt {
  if (chat && !tokenizer.hasChatTemplate) {
    throw new PagesiftError("usage", "The model has no chat template; omit --chat");
  }
  const encode = promptEncoder({ chat, raw: false }, tokenizer);
  return chat
    ? (prompt, start) => [...encode(prompt), ...tokenizer.encode(start, { addSpecialTokens: false })]
    : (prompt, start) => encode(start === "" ? prompt : `${prompt}\n${start}`);
}

/** Encodes a task file. Lines that cannot be measured are left out, with a warning. */
function fileTask(
  file: string,
  lines: readonly QuestionedText[],
  encode: EncodePrompt,
  plan: QualityPlan,
  maxContext: number,
  { output }: CommandRun,
): FileTask {
  const { documents, short, long } = fileDocuments(lines, encode, plan, maxContext);
  const reasons = [
    ...short > 0 ? [`${short} with no more tokens than --budget ${plan.mostBudgetTokens}`] : [],
    ...long > 0 ? [`${long} longer than the model's context of ${formatCount(maxContext)} tokens`] : [],
  ].join(", ");
  const left = `--task ${file}: ${short + long} of ${plural(lines.length, "line")} cannot be measured: ${reasons}`;
  if (documents.length === 0) throw new PagesiftError("usage", left);
  if (reasons !== "") output.warn(`${left}; the rows leave them out`);
  return { name: basename(file, ".jsonl"), documents };
}

function notesOf(
  { documents, facts, proseTokens, tasks, files, seed }: QualityPlan,
  { chat, adapter }: Pick<BenchQualityFlags, "chat" | "adapter">,
): string[] {
  const asked = tasks.some((task) => task === "needle" || task === "pairs")
    ? [
      `${plural(documents, "document")} per length with ${
        plural(facts, "question")
      } each, seed ${seed}; an answer counts when all digits are right. "by depth": first, middle and last third.`,
    ]
    : [];
  const ruler = tasks.some(isRuler) || files.length > 0
    ? [
      `Tasks after RULER and from files: ${promptStyleName({ chat, raw: false })}; ` +
      `${plural(documents, "document")} per length, seed ${seed}, files whole; "score" is the share of the accepted ` +
      'strings in the answer (qa and files: any), "correct" counts full scores.',
    ]
    : [];
  const fed = tasks.includes("prose")
    ? [
      `Prose: ${proseTokens} tokens after each of ${
        plural(documents, "document")
      }; intervals of paired differences in blocks of ${LOSS_BLOCK} tokens.`,
    ]
    : [];
  return [
    "Question, answer and prose are fed one token at a time, so every step decodes with the settings of its row.",
    ...adapterNotes(adapter),
    ...asked,
    ...ruler,
    ...fed,
  ];
}
