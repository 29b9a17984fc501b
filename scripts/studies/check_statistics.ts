/**
 * Measures which pages cheaper scoring misses, on the real keys of a model: a book is prefilled, its next tokens are decoded one by one, and
 * every arm selects pages for the query of every layer that selects and every KV head, in f64. The baseline scores every page by its mean
 * and variance as stored.
 *
 *     deno run -A scripts/studies/check_statistics.ts BOOK -m MODEL [--context 16384] [--queries 24] [--budget 512] [--page-size 8]
 */
import { parseArgs } from "@std/cli/parse-args";
import { fromFileUrl } from "@std/path";
import { Engine } from "../../engine/engine.ts";
import { print } from "../output.ts";
import { commit, openSequence, proseIds } from "./measure.ts";

const [SINK_PAGES, RECENT_PAGES, GROUP_PAGES] = [1, 2, 8];
/** Cuts between, and values of, the 2-bit codes of a variance, in shares of the largest. */
const CUTS = [0.0511, 0.2576, 0.69];
const LEVELS = [2, 32, 112, 255].map((level) => level / 255);

type Row = Float64Array;

/** Means and variances `[rows, d]`. */
interface Statistics {
  mean: Row;
  variance: Row;
}

/** The pages of one layer and KV head. `keys` [P * S, d] */
interface HeadPages {
  keys: Row;
  exact: Statistics;
  coarse: Statistics;
  groups: Statistics;
}

type Scorer = "unique" | "diag";
const LAMBDA = { unique: 0.5, diag: 2 };

function dot(a: Row, b: Row, offset: number): number {
  let sum = 0;
  for (let index = 0; index < a.length; index++) sum += (a[index] ?? 0) * (b[offset + index] ?? 0);
  return sum;
}

function largest(numbers: Row): number {
  return numbers.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
}

/** Applies `change` to every row of d numbers. */
function byRow(rows: Row, d: number, change: (row: Row) => Iterable<number>): Float64Array {
  const out = new Float64Array(rows.length);
  for (let at = 0; at < rows.length; at += d) out.set(Float64Array.from(change(rows.subarray(at, at + d))), at);
  return out;
}

function coarseOf({ mean, variance }: Statistics, d: number): Statistics {
  const inBytes = (row: Row): Iterable<number> => {
    const scale = largest(row) / 127 || 1;
    return row.map((x) => Math.round(x / scale) * scale);
  };
  const inCodes = (row: Row): Iterable<number> => {
    const scale = largest(row) || 1;
    return row.map((x) => (LEVELS[CUTS.filter((cut) => x / scale > cut).length] ?? 0) * scale);
  };
  return { mean: byRow(mean, d, inBytes), variance: byRow(variance, d, inCodes) };
}

/** Mean and variance of all keys of 8 pages. */
function groupsOf({ mean, variance }: Statistics, d: number): Statistics {
  const count = Math.ceil(mean.length / d / GROUP_PAGES);
  const out = { mean: new Float64Array(count * d), variance: new Float64Array(count * d) };
  for (let group = 0; group < count; group++) {
    const pages = Math.min(GROUP_PAGES, mean.length / d - group * GROUP_PAGES);
    for (let dim = 0; dim < d; dim++) {
      const places = Array.from({ length: pages }, (_, page) => (group * GROUP_PAGES + page) * d + dim);
      const centre = places.reduce((sum, at) => sum + (mean[at] ?? 0), 0) / pages;
      out.mean[group * d + dim] = centre;
      out.variance[group * d + dim] = places.reduce((sum, at) =>
        sum + (variance[at] ?? 0) + ((mean[at] ?? 0) - centre) ** 2, 0) / pages;
    }
  }
  return out;
}

/** The largest score over the queries of the group, of every row; `unique` takes its one spread from `spread`. */
function scoreRows(scorer: Scorer, queries: readonly Row[], rows: Statistics, spread = rows): Float64Array {
  const d = queries[0]?.length ?? 1;
  const squares = queries.map((query) => query.map((x) => x * x));
  const lengths = squares.map((square) => square.reduce((sum, x) => sum + x, 0));
  const ones = new Float64Array(d).fill(1);
  return Float64Array.from({ length: rows.mean.length / d }, (_, row) => {
    const variance = scorer === "unique" ? dot(ones, spread.variance, row * d) : 0;
    const each = queries.map((query, head) => {
      const spreads = scorer === "unique"
        ? (lengths[head] ?? 0) * variance
        : dot(squares[head] ?? ones, rows.variance, row * d);
      return dot(query, rows.mean, row * d) + LAMBDA[scorer] * Math.sqrt(spreads);
    });
    return Math.max(...each);
  });
}

/** The `count` best of `rows`; ties go to the lower row. */
function best(scores: Row, rows: readonly number[], count: number): number[] {
  return rows.toSorted((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0) || a - b).slice(0, count);
}

/** Selects `room` of the pages `free`. */
type Choose = (head: HeadPages, queries: readonly Row[], exact: Row, free: readonly number[], room: number) => number[];

function arms(scorer: Scorer): [string, Choose][] {
  const coarseScores = (head: HeadPages, queries: readonly Row[]): Row =>
    scoreRows(scorer, queries, head.coarse, head.exact);
  return [
    ["every page, as stored", (_, __, exact, free, room) => best(exact, free, room)],
    ["coarse alone", (head, queries, _, free, room) => best(coarseScores(head, queries), free, room)],
    ...[1.5, 2, 3].map((factor): [string, Choose] => [
      `coarse, best ${factor} k again`,
      (head, queries, exact, free, room) =>
        best(exact, best(coarseScores(head, queries), free, Math.round(factor * room)), room),
    ]),
    ...[1.5, 3].map((factor): [string, Choose] => [
      `groups of 8 pages, best ${factor} k`,
      (head, queries, exact, free, room) => {
        const scores = scoreRows(scorer, queries, head.groups);
        const taken = new Set(best(scores, [...scores.keys()], Math.round(factor * room)));
        return best(exact, free.filter((page) => taken.has(Math.floor(page / GROUP_PAGES))), room);
      },
    ]),
  ];
}

/** Share of the dense softmax of every page, averaged over the queries. `[P]` */
function pageMass(queries: readonly Row[], keys: Row, numTokens: number, pageSize: number): Float64Array {
  const mass = new Float64Array(Math.ceil(numTokens / pageSize));
  for (const query of queries) {
    const logits = Float64Array.from(
      { length: numTokens },
      (_, token) => dot(query, keys, token * query.length) / Math.sqrt(query.length),
    );
    const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0);
    logits.forEach((logit, token) => {
      mass[Math.floor(token / pageSize)]! += Math.exp(logit - top) / total / queries.length;
    });
  }
  return mass;
}

/** Sums of one arm in one layer. */
interface Sums {
  recall: number;
  mass: number;
  rows: number;
}

const flags = parseArgs(Deno.args, {
  string: ["model", "context", "queries", "budget", "page-size"],
  alias: { m: "model" },
});
const [context, queries] = [Number(flags.context ?? 16384), Number(flags.queries ?? 24)];
const [budgetTokens, pageSize] = [Number(flags.budget ?? 512), Number(flags["page-size"] ?? 8)];
const model = flags.model?.toString() ?? fromFileUrl(new URL("../../models/default", import.meta.url));
await using engine = await Engine.load(model, { device: "cpu" });
const policy = engine.policy({ mode: "on", scorer: "diag", budgetTokens, pageSize });
const { session, sequence } = openSequence(engine, context + queries, pageSize, { scorer: "diag" });
using _session = session;
const ids = proseIds(engine, String(flags._[0]), context + queries);
await session.prefill(sequence, ids.slice(0, context));
const { numKvHeads, numQueryHeads, headDim: d } = session.pool.shape;
const [group, numPages] = [numQueryHeads / numKvHeads, Math.floor(context / pageSize)];
const layers = [...policy.layers.entries()].filter(([, { kind }]) => kind === "sparse").map(([layer]) => layer);

function loadHeads(layer: number): HeadPages[] {
  const pages = sequence.pages.slice(0, numPages);
  const fields = (["keys", "mean", "var"] as const).map((field) =>
    pages.map((page) => session.pool.cache.readPage(layer, page, field))
  );
  return Array.from({ length: numKvHeads }, (_, head) => {
    const [keys = [], means = [], variances = []] = fields;
    const joined = (parts: readonly Float32Array[]): Row =>
      Float64Array.from(parts.flatMap((part) => {
        const width = part.length / numKvHeads;
        return [...part.subarray(head * width, (head + 1) * width)];
      }));
    const exact = { mean: joined(means), variance: joined(variances) };
    return { keys: joined(keys), exact, coarse: coarseOf(exact, d), groups: groupsOf(exact, d) };
  });
}

const heads = new Map(layers.map((layer) => [layer, loadHeads(layer)]));
const free = Array.from({ length: numPages - SINK_PAGES - RECENT_PAGES }, (_, index) => SINK_PAGES + index);
const room = policy.budgetPages - SINK_PAGES - RECENT_PAGES;
const sums = new Map<string, Map<number, Sums>>();

function compare(scorer: Scorer, layer: number, head: HeadPages, own: readonly Row[], mass: Row): void {
  const exact = scoreRows(scorer, own, head.exact);
  const wanted = new Set(best(exact, free, room));
  for (const [name, choose] of arms(scorer)) {
    const pages = choose(head, own, exact, free, room);
    const byLayer = sums.getOrInsertComputed(`${scorer}: ${name}`, () => new Map());
    const sum = byLayer.getOrInsertComputed(layer, (): Sums => ({ recall: 0, mass: 0, rows: 0 }));
    sum.recall += pages.filter((page) => wanted.has(page)).length / wanted.size;
    sum.mass += pages.reduce((total, page) => total + (mass[page] ?? 0), 0);
    sum.rows++;
  }
}

const views = session.loaded.model.activations.views(1);
for (const id of ids.slice(context)) {
  const afterLayer = (layer: number): void => {
    const q = Float64Array.from(heads.has(layer) ? views.q.readFloats() : []);
    heads.get(layer)?.forEach((head, kvHead) => {
      const own = Array.from({ length: group }, (_, index) => q.slice((kvHead * group + index) * d).subarray(0, d));
      const mass = pageMass(own, head.keys, numPages * pageSize, pageSize);
      for (const scorer of ["unique", "diag"] as const) compare(scorer, layer, head, own, mass);
    });
  };
  session.step([sequence], [id], policy, { afterLayer });
}

const percent = (share: number): string => (100 * share).toFixed(2);
const mean = (values: readonly number[]): number => values.reduce((sum, x) => sum + x, 0) / values.length;
print(
  `commit ${await commit()}, context ${context}, ${queries} decode steps of ${layers.length} layers, page ${pageSize}, budget ` +
    `${budgetTokens}, unique ${LAMBDA.unique}, diag ${LAMBDA.diag}; without the pages that are always read\n`,
);
print(
  "| pages by | recall % | worst layer | softmax mass, % of scoring every page | worst layer |\n|---|---|---|---|---|",
);
for (const [name, byLayer] of sums) {
  const all = [...byLayer];
  const base = sums.get(`${name.split(":")[0]}: every page, as stored`);
  const recalls = all.map(([, { recall, rows }]) => recall / rows);
  const masses = all.map(([layer, { mass }]) => mass / (base?.get(layer)?.mass ?? NaN));
  const total = all.reduce((sum, [, { mass }]) => sum + mass, 0) /
    [...base ?? []].reduce((sum, [, { mass }]) => sum + mass, 0);
  print(
    `| ${name} | ${percent(mean(recalls))} | ${percent(Math.min(...recalls))} | ${percent(total)} | ${
      percent(Math.min(...masses))
    } |`,
  );
}
print("\nRecall per layer with the coarse statistics, best 3 k again:");
for (const scorer of ["unique", "diag"]) {
  const byLayer = [...sums.get(`${scorer}: coarse, best 3 k again`) ?? []];
  print(`${scorer}: ${byLayer.map(([layer, { recall, rows }]) => `${layer}: ${percent(recall / rows)}`).join(", ")}`);
}
