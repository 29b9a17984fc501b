import { basename } from "@std/path";
import { proseIds } from "../../bench/documents.ts";
import { modelSha256 } from "../../bench/model_hash.ts";
import { provenanceOf } from "../../bench/provenance.ts";
import { benchQuality, proseNeed } from "../../bench/quality.ts";
import { checkQualityContext, planQuality, type QualityPlan } from "../../bench/quality_plan.ts";
import { LOSS_BLOCK } from "../../bench/quality_tally.ts";
import { Engine } from "../../engine/engine.ts";
import { PagesiftError, reasonOf } from "../../engine/errors.ts";
import { openModelSource } from "../../engine/source/model_source.ts";
import { plural } from "../../engine/text/format.ts";
import { prepareFiles, printRun, progressShower } from "./run.ts";
import { commandLine } from "../system_world.ts";
import { findModel } from "../load.ts";
import type { BenchQualityFlags } from "../options/bench_quality.ts";
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
  const plan = planQuality({ ...flags, levels: flags.levels === 1 ? 1 : 2 });
  const text = readText(flags.text);
  const { folder, name } = await findModel(flags, session, new Progress(session.output));
  const source = await openModelSource(folder);
  checkQualityContext(plan, source.config.maxContext);
  const tokenizer = await source.tokenizer({ vocabSize: source.config.vocabSize });
  const prose = session.interrupt.blocking(() =>
    proseIds(tokenizer, flags.text ?? "the shipped text", text, proseNeed(plan))
  );
  session.output.status(`Loading ${name}`);
  await using engine = await Engine.load(folder, {
    device: flags.device,
    weights: flags.weights,
    kvType: flags.kvType,
    ...promptCacheOf(flags, name, session),
    ...flags.threads !== undefined && { threads: flags.threads },
  });
  session.output.notices(engine.notices);
  const provenance = await provenanceOf(engine.describeDevice(), {
    ...{ command: commandLine(), model: basename(name), modelSha256: await modelSha256(folder) },
    notes: notesOf(plan),
  });
  const hooks = { signal: session.interrupt.signal, onProgress: progressShower(session) };
  const cells = benchQuality(engine, basename(name), plan, prose, hooks);
  await printRun(
    { subject: "quality", provenance, peers: [], plot, cells },
    { ...flags, peers: [] },
    session,
  );
}

function readText(file: string | undefined): string {
  const path = file ?? shippedPath("examples/war_of_the_worlds.txt");
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    const what = file === undefined
      ? "The shipped text is not part of this installation"
      : `--text "${file}" cannot be read`;
    throw new PagesiftError("usage", `${what}: ${reasonOf(error)}; pass a text file with --text`);
  }
}

function notesOf({ documents, facts, proseTokens, tasks, seed }: QualityPlan): string[] {
  const asked = tasks.some((task) => task !== "prose")
    ? [
      `${plural(documents, "document")} per length with ${
        plural(facts, "question")
      } each, seed ${seed}; an answer counts when all digits are right. "by depth": first, middle and last third.`,
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
    ...asked,
    ...fed,
  ];
}
