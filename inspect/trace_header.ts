import { type Ablation, COMPARED_SCORERS, type ComparedScorer, type Facts } from "./recording.ts";
import type { Span } from "./prompt_text.ts";

/** The part of a trace that is JSON. */
export interface TraceHeader {
  facts: Facts;
  spans: readonly Span[];
  scorers: readonly ComparedScorer[];
  promptReads?: number[];
  ablations?: Ablation[];
  /** Sizes of text, token ends, masses, scores, rows, figures, compared figures. */
  sectionBytes: number[];
}

const SECTIONS = 7;
const TEXTS = ["version", "model", "device", "command", "date", "scorer", "finish", "answerText"] as const;
const NUMBERS = ["lambda", "prefillSeconds", "decodeSeconds"] as const;
const COUNTS = [
  ...["promptTokens", "steps", "pageSize", "pages", "heads", "queryHeads", "budgetPages", "sinkPages"] as const,
  ...["firstRecentPage", "selectedSteps", "pagesRead", "pagesDense"] as const,
];
/** No real count comes near. */
const LARGEST = 2 ** 48;

/** Refuses a header that Pagesift never writes, even with a valid checksum. @throws {TypeError} that names the field */
export function checkHeader(value: unknown): asserts value is TraceHeader {
  const header = objectOf(value, "header");
  const facts = objectOf(header["facts"], "facts");
  for (const name of TEXTS) want(typeof facts[name] === "string", name);
  for (const name of NUMBERS) want(Number.isFinite(facts[name]), name);
  for (const name of COUNTS) want(isCount(facts[name]), name);
  want(facts["pageSize"] !== 0 && facts["steps"] !== 0, "pageSize or steps");
  want(listOf(facts["layers"], (one) => one === "sparse" || one === "dense" || one === "window"), "layers");
  want(listOf(facts["answerIds"], isCount), "answerIds");
  want(
    listOf(header["sectionBytes"], isCount) && (header["sectionBytes"] as unknown[]).length === SECTIONS,
    "sectionBytes",
  );
  want(listOf(header["scorers"], (one) => COMPARED_SCORERS.some((scorer) => scorer === one)), "scorers");
  want(listOf(header["spans"], isSpan), "spans");
  const reads = header["promptReads"];
  const isWhole = Array.isArray(reads) && reads.length === facts["pages"];
  want(reads === undefined || isWhole && listOf(reads, isCount), "promptReads");
  want(header["ablations"] === undefined || listOf(header["ablations"], isAblation), "ablations");
  checkPages(facts as unknown as Facts);
}

function checkPages({ promptTokens, steps, pageSize, pages }: Facts): void {
  want(pages === Math.ceil((promptTokens + steps) / pageSize), "pages");
}

function isSpan(value: unknown): boolean {
  const { source, start, end, line } = objectOf(value, "span");
  return typeof source === "string" && isCount(start) && isCount(end) && isCount(line);
}

function isAblation(value: unknown): boolean {
  const { label, pages, logProbability, baseline, mass } = objectOf(value, "ablation");
  return typeof label === "string" && listOf(pages, isCount) && [logProbability, baseline, mass].every(Number.isFinite);
}

function objectOf(value: unknown, name: string): Record<string, unknown> {
  want(typeof value === "object" && value !== null && !Array.isArray(value), name);
  return value as Record<string, unknown>;
}

function listOf(value: unknown, isOne: (one: unknown) => boolean): boolean {
  return Array.isArray(value) && value.every(isOne);
}

function isCount(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < LARGEST;
}

function want(condition: boolean, name: string): void {
  if (!condition) throw new TypeError(`its ${name} cannot be used`);
}
