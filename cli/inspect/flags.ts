import { PagesiftError } from "../../engine/errors.ts";
import {
  type Ablated,
  ablatedOf,
  COMPARED_FIGURES,
  COMPARED_SCORERS,
  type ComparedScorer,
  type Recording,
} from "../../inspect/recording.ts";
import type { Selectors } from "../../inspect/report.ts";
import type { InspectFlags } from "../options/inspect.ts";

/** The legal range of the selectors. */
export interface SelectorRange {
  layers: number;
  heads: number;
  steps: number;
}

/** The scorers of `--compare`, without duplicates. */
export function comparedScorers(list: string | undefined): ComparedScorer[] {
  if (list === undefined) return [];
  const names = list.split(",").map((name) => name.trim());
  return [...new Set(names)].map((name) => {
    const scorer = COMPARED_SCORERS.find((each) => each === name);
    if (scorer) return scorer;
    throw new PagesiftError(
      "usage",
      `--compare "${name}" is not a scorer: expected some of ${COMPARED_SCORERS.join(",")}`,
    );
  });
}

/** The selectors, from 0. @throws {PagesiftError} of kind "usage" that names the valid range */
export function selectorsOf({ layer, head, step }: InspectFlags, range: SelectorRange): Selectors {
  check("--layer", layer, 0, range.layers - 1);
  check("--head", head, 0, range.heads - 1);
  check("--step", step, 1, range.steps);
  return { layer, head, step: step === undefined ? undefined : step - 1 };
}

function check(flag: string, value: number | undefined, least: number, most: number): void {
  if (value === undefined || value >= least && value <= most) return;
  throw new PagesiftError("usage", `${flag} ${value} is out of range: expected ${least} to ${most}`);
}

/** Refuses flags that exclude each other. */
export function checkInspectFlags(flags: InspectFlags, words: readonly string[]): void {
  const { replay, json, tsv, text } = flags;
  const [first, second] = [json && "--json", tsv && "--tsv", text && "--text"].filter((flag) => flag !== false);
  if (second) throw new PagesiftError("usage", `${first} and ${second} exclude each other; choose one`);
  if (replay === undefined) return;
  const prompt: string | undefined = [...flags.prompt, ...flags.files, ...words][0];
  const other = prompt !== undefined ? `the prompt "${prompt}"` : flags.trace !== undefined ? "--trace" : undefined;
  if (other !== undefined) throw new PagesiftError("usage", `--replay ${replay} and ${other} exclude each other`);
}

/** Refuses to show masked pages that a trace does not contain: masking others requires the model. */
export function checkAblations({ ablations }: Recording, asked: Ablated | undefined, file: string): void {
  const held = ablatedOf(ablations);
  if (asked === undefined || asked === held || ablations?.length === 0) return;
  const masks = held === undefined ? "masks nothing" : `masks each ${held}`;
  throw new PagesiftError(
    "usage",
    `--ablate ${asked} cannot be shown: trace "${file}" ${masks}; record it again with --ablate ${asked}`,
  );
}

/** A recording with only the scorers of `--compare`. @throws {PagesiftError} of kind "usage" where one was not recorded */
export function withScorers(recording: Recording, asked: readonly ComparedScorer[], file: string): Recording {
  if (asked.length === 0) return recording;
  const { scorers, figures } = recording.comparison ?? { scorers: [], figures: new Float32Array() };
  const places = asked.map((scorer) => scorers.indexOf(scorer));
  if (places.includes(-1)) {
    const held = scorers.length === 0 ? "compares no scorers" : `compares ${scorers.join(",")} only`;
    throw new PagesiftError(
      "usage",
      `--compare ${asked.join(",")} cannot be shown: trace "${file}" ${held}; record it again with --compare`,
    );
  }
  const width = COMPARED_FIGURES.length;
  const rows = Array.from({ length: figures.length / (scorers.length * width) }, (_, row) => row * scorers.length);
  const selected = rows.flatMap((row) =>
    places.flatMap((at) => [...figures.subarray((row + at) * width, (row + at + 1) * width)])
  );
  return { ...recording, comparison: { scorers: asked, figures: Float32Array.from(selected) } };
}
