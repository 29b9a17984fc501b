/** Answers and predictions of one arm, compared with dense on the same questions and tokens. */
import { pairedInterval, pairedScoreInterval, signTest, wilson } from "./intervals.ts";
import type { QualityArm } from "./quality_plan.ts";
import type { RetainedMass } from "./quality_session.ts";
import type { Row } from "./row.ts";
import { mean, median, percentile } from "./statistics.ts";

/** Neighbouring tokens that count as one sample in a difference of losses. */
export const LOSS_BLOCK = 16;
/** A sparse arm beats dense by more than noise if the probability by chance is lower. */
const ALARM_CHANCE = 0.01;
/**
 * The same for losses, in half-widths of their interval: about three standard errors, because a table has many
 * cells.
 */
const ALARM_WIDTHS = 1.6;
const DEPTH_PARTS = 3;

export interface Tally {
  arm: QualityArm;
  /** One per question, in the same order in all arms. */
  answers: { score: number; depth: number | undefined }[];
  /** One per token, in the same order in all arms, in nats. */
  losses: number[];
  /** KL of dense from this arm, in nats. */
  divergences: number[];
  agreements: boolean[];
  mass: RetainedMass;
  stepSeconds: number[];
}

export function emptyTally(arm: QualityArm): Tally {
  const mass = { rows: 0, retained: 0, oracle: 0, recall: 0 };
  return { arm, answers: [], losses: [], divergences: [], agreements: [], mass, stepSeconds: [] };
}

/** The fields of a row that describe quality. */
export type QualityFields = Partial<Row>;

/** Scores of answers, compared with dense question by question. */
export function answerFields({ arm, answers }: Tally, dense: Tally): QualityFields {
  const right = answers.filter(({ score }) => score === 1).length;
  const { low, high } = wilson(right, answers.length);
  const fields: QualityFields = {
    ...{ trials: answers.length, right, accuracy: right / answers.length, accuracy_low: low, accuracy_high: high },
    score: mean(answers.map(({ score }) => score)),
    ...answers.every(({ depth }) => depth !== undefined) ? { by_depth: byDepth(answers) } : {},
  };
  if (arm.name === "dense") return fields;
  const changes = answers.map(({ score }, index) => score - (dense.answers[index]?.score ?? NaN));
  const change = pairedScoreInterval(changes);
  const [gained, lost] = [changes.filter((each) => each > 0).length, changes.filter((each) => each < 0).length];
  const beats = signTest(gained, lost) < ALARM_CHANCE;
  return {
    ...fields,
    ...{ score_change: mean(changes), score_change_low: change.low, score_change_high: change.high },
    ...beats ? { alarm: `finds ${gained} that dense misses, misses ${lost} that dense finds` } : {},
  };
}

/** `5/5 4/5 5/5`: correct answers in the first, middle and last part of the documents. */
function byDepth(answers: Tally["answers"]): string {
  return Array.from({ length: DEPTH_PARTS }, (_, part) => {
    const each = answers.filter(({ depth = 0 }) => Math.min(DEPTH_PARTS - 1, Math.floor(depth * DEPTH_PARTS)) === part);
    return `${each.filter(({ score }) => score === 1).length}/${each.length}`;
  }).join(" ");
}

/** Losses, compared with dense. */
export function proseFields({ arm, losses, divergences, agreements, mass }: Tally, dense: Tally): QualityFields {
  const loss = mean(losses);
  if (arm.name === "dense") return { loss };
  const changes = losses.map((value, index) => value - (dense.losses[index] ?? NaN));
  const { low, high } = pairedInterval(changes, LOSS_BLOCK);
  const bounded = Number.isFinite(low);
  const change = mean(changes);
  const beats = bounded && change + ALARM_WIDTHS * (high - change) < 0;
  return {
    ...{ loss, loss_change: change, kl: mean(divergences), kl_p99: percentile(divergences, 0.99) },
    ...bounded ? { loss_change_low: low, loss_change_high: high } : {},
    top1_agreement: agreements.filter((same) => same).length / agreements.length,
    ...mass.rows > 0
      ? { mass_kept: mass.retained / mass.rows, oracle_mass: mass.oracle / mass.rows, recall: mass.recall / mass.rows }
      : {},
    ...beats ? { alarm: `its loss is ${(-change).toFixed(4)} lower` } : {},
  };
}

/** Median time of a step, in microseconds. */
export function stepUs({ stepSeconds }: Tally): number {
  return median(stepSeconds) * 1e6;
}
