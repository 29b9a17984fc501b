/** 16-bit codes for the numbers of a recording. They keep it small, and a replay shows exactly what the run showed. */

const HIGHEST = 65535;
/** Masses are logarithms from 2^-32 to 1: accurate to 0.02 %. Smaller masses become 0. */
const LOG_RANGE = 32;
/** Scores are thousandths of a standard deviation. */
const SCORE_STEPS = 1000;
const SCORE_ZERO = 32768;

export function massCode(mass: number): number {
  if (!(mass > 2 ** -LOG_RANGE)) return 0;
  return Math.min(HIGHEST, Math.max(1, Math.round((Math.log2(mass) + LOG_RANGE) / LOG_RANGE * HIGHEST)));
}

export function massOf(code: number): number {
  return code === 0 ? 0 : 2 ** (code / HIGHEST * LOG_RANGE - LOG_RANGE);
}

export function scoreCode(score: number): number {
  return Math.max(0, Math.min(HIGHEST, SCORE_ZERO + Math.round(score * SCORE_STEPS)));
}

export function scoreOf(code: number): number {
  return (code - SCORE_ZERO) / SCORE_STEPS;
}
