/** A recording of any size without a model. */
import { Random } from "../../engine/sample/random.ts";
import { massCode, scoreCode } from "../../inspect/codes.ts";
import { type Facts, FIGURES, type Recording } from "../../inspect/recording.ts";
import { type Entry, RowLog } from "../../inspect/row_log.ts";

export interface SyntheticShape {
  pages: number;
  layers: number;
  heads: number;
  steps: number;
  /** Pages that each row reads. */
  budgetPages: number;
  /** Every row read every page. */
  dense?: boolean;
}

const PAGE_SIZE = 8;
const WORD = "word ";

export function syntheticRecording(shape: SyntheticShape): Recording {
  const { pages, layers, heads, steps, budgetPages, dense = false } = shape;
  const random = new Random(1);
  const rows = new RowLog();
  for (let row = 0; row < steps * layers * heads; row++) {
    const entries = randomEntries(random, pages, budgetPages);
    const wanted = entries.filter((entry) => entry.wanted).map((entry) => ({ ...entry, selected: true }));
    rows.add({ allRead: dense, entries: dense ? wanted : entries });
  }
  const size = layers * heads * pages;
  const tokens = pages * PAGE_SIZE;
  const text = WORD.repeat(tokens);
  return {
    facts: factsOf(shape),
    text: {
      text,
      tokenEnds: Uint32Array.from({ length: tokens }, (_, token) => (token + 1) * WORD.length),
      spans: [{ source: "book.txt", start: 0, end: text.length, line: 1 }],
    },
    totals: {
      mass: Uint16Array.from({ length: size }, () => massCode(random.nextFloat() / pages)),
      score: Uint16Array.from({ length: size }, () => scoreCode(random.nextFloat() - 0.5)),
    },
    rows,
    figures: new Float32Array(steps * layers * heads * FIGURES.length).fill(0.5),
  };
}

function randomEntries(random: Random, pages: number, count: number): Entry[] {
  const stride = Math.floor(pages / count);
  return Array.from({ length: count }, (_, index) => ({
    page: index * stride + Math.floor(random.nextFloat() * stride),
    selected: index % 4 !== 0,
    wanted: index % 3 !== 0 || index % 4 === 0,
    mass: random.nextFloat() / count,
    score: random.nextFloat(),
  }));
}

function factsOf({ pages, layers, heads, steps, budgetPages }: SyntheticShape): Facts {
  return {
    ...{ version: "0", model: "none", device: "none", command: "none", date: "2026-01-01T00:00:00Z" },
    ...{ promptTokens: pages * PAGE_SIZE - steps, steps, pageSize: PAGE_SIZE, pages, heads, queryHeads: heads },
    ...{ budgetPages, scorer: "unique", lambda: 0.5, sinkPages: 1, firstRecentPage: pages - 2 },
    ...{ selectedSteps: steps, pagesRead: 1, pagesDense: 1, prefillSeconds: 0, decodeSeconds: 0 },
    layers: Array.from({ length: layers }, () => "sparse" as const),
    answerIds: [],
    answerText: "",
    finish: "length",
  };
}
