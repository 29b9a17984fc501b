/**
 * Measures how well page sets agree if page means are stored in fewer bits, or scored on two levels. It uses the real keys of a model:
 * a book is prefilled, its next tokens are decoded one by one, and every arm selects pages for the query of every layer and KV
 * head with `unique` 0.5 in f64. The baseline is the format of the cache: bf16 means, f32 std.
 *
 *     deno run -A scripts/studies/check_statistics.ts BOOK [--model DIR] [--context 16384] [--queries 24] [--budget 512] [--page-size 8]
 */
import { parseArgs } from "@std/cli/parse-args";
import { fromFileUrl } from "@std/path";
import { Engine } from "../../engine/engine.ts";
import type { PagePolicy } from "../../engine/pages/page_policy.ts";
import type { Sequence } from "../../engine/pages/sequence.ts";
import type { Session } from "../../engine/session.ts";
import { ENCODINGS, toBf16 } from "./encodings.ts";
import { type Arm, dot, type HeadPages, LAMBDA, makeArms, RECENT_PAGES, type Search, SINK_PAGES } from "./page_arms.ts";
import { print } from "../output.ts";
import { commit, openSequence, proseIds } from "./measure.ts";

/** Mean `[d]` and spread of the first `numTokens` keys of a page, in every encoding. */
function storePage(head: HeadPages, page: number, numTokens: number, pageSize: number, withCodes: boolean): void {
  const d = head.centre.length;
  const mean = new Float64Array(d);
  const start = page * pageSize * d;
  for (let at = 0; at < numTokens * d; at++) mean[at % d]! += (head.keys[start + at] ?? 0) / numTokens;
  let sum = 0;
  for (let at = 0; at < numTokens * d; at++) sum += ((head.keys[start + at] ?? 0) - (mean[at % d] ?? 0)) ** 2;
  head.std[page] = Math.sqrt(sum / numTokens);
  head.stdBf16[page] = toBf16(head.std[page] ?? 0);
  const row = Float32Array.from(mean);
  for (const [name, encode] of Object.entries(ENCODINGS)) {
    if (withCodes || name === "f32") head.means.get(name)?.set(encode(row, head.centre), page * d);
  }
}

/** The data of one layer and KV head, with room for `maxPages`. */
function openHead(layer: number, maxPages: number, pageSize: number, d: number): HeadPages {
  const means = new Map(Object.keys(ENCODINGS).map((name) => [name, new Float32Array(maxPages * d)]));
  const keys = new Float32Array(maxPages * pageSize * d);
  return {
    ...{ layer, keys, means, centre: new Float32Array(d) },
    ...{ std: new Float32Array(maxPages), stdBf16: new Float32Array(maxPages) },
  };
}

/** A prefilled sequence of the model. */
interface Subject {
  session: Session;
  sequence: Sequence;
}

/** Copies the page's keys of all KV heads of a layer to JavaScript; their mean must equal the cache's own mean. */
function loadPage(subject: Subject, heads: readonly HeadPages[], page: number, withCodes: boolean): void {
  const { session: { pool }, sequence } = subject;
  const { pageSize, headDim: d } = pool.shape;
  const [physical = 0, layer = 0] = [sequence.pages[page], heads[0]?.layer];
  const keys = pool.cache.readPage(layer, physical, "keys");
  const cached = pool.cache.readPage(layer, physical, "mean");
  const numTokens = Math.min(pageSize, sequence.length - page * pageSize);
  heads.forEach((head, index) => {
    head.keys.set(keys.subarray(index * pageSize * d, (index + 1) * pageSize * d), page * pageSize * d);
    storePage(head, page, numTokens, pageSize, withCodes);
    const mean = head.means.get("f32")?.subarray(page * d, (page + 1) * d) ?? [];
    mean.forEach((value, at) => {
      const difference = Math.abs(value - (cached[index * d + at] ?? NaN));
      if (!(difference <= Math.abs(value) / 128 + 1e-5)) {
        throw new Error(`Page ${page}: the mean differs from the cache`);
      }
    });
  });
}

/** Reads all pages of all layers, computes the centre and encodes every mean. Returns `[layers][Hk]`. */
function loadHeads(subject: Subject, maxTokens: number): HeadPages[][] {
  const { numLayers, numKvHeads, pageSize, headDim: d } = subject.session.pool.shape;
  const maxPages = Math.ceil(maxTokens / pageSize);
  const numPages = subject.sequence.pages.length;
  return Array.from({ length: numLayers }, (_, layer) => {
    const heads = Array.from({ length: numKvHeads }, () => openHead(layer, maxPages, pageSize, d));
    for (let page = 0; page < numPages; page++) loadPage(subject, heads, page, false);
    for (const head of heads) {
      const means = head.means.get("f32")?.subarray(0, numPages * d) ?? [];
      means.forEach((value, at) => head.centre[at % d]! += value / numPages);
      for (let page = 0; page < numPages; page++) storePage(head, page, pageSize, pageSize, true);
    }
    return heads;
  });
}

/** Share of the dense softmax of every page, averaged over the group. `[P]` */
function pageMass({ pages, queries }: Search, numTokens: number, pageSize: number): Float64Array {
  const mass = new Float64Array(Math.ceil(numTokens / pageSize));
  for (const query of queries) {
    const logits = Float64Array.from(
      { length: numTokens },
      (_, token) => dot(query, pages.keys, token * query.length) / Math.sqrt(query.length),
    );
    const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0);
    logits.forEach((logit, token) => {
      mass[Math.floor(token / pageSize)]! += Math.exp(logit - top) / total / queries.length;
    });
  }
  return mass;
}

/** Selects pages with every arm and compares with the first one. */
function compare(arms: readonly Arm[], search: Search, mass: Float64Array): void {
  let base = new Set<number>();
  const { layer } = search.pages;
  const forced = mass.reduce((sum, value, page) => {
    return page < SINK_PAGES || page >= search.numPages - RECENT_PAGES ? sum + value : sum;
  }, 0);
  arms.forEach((each, index) => {
    const pages = each.choose(search);
    if (index === 0) base = new Set(pages);
    const same = pages.filter((page) => base.has(page)).length;
    each.agreed[layer] = (each.agreed[layer] ?? 0) + same / base.size;
    each.rows[layer] = (each.rows[layer] ?? 0) + 1;
    each.mass += forced + pages.reduce((sum, page) => sum + (mass[page] ?? 0), 0);
  });
}

/** Decodes one token of the book and compares the arms on the queries of all layers. */
function traceStep(subject: Subject, policy: PagePolicy, id: number, heads: HeadPages[][], arms: Arm[]): void {
  const { session, sequence } = subject;
  const { pool, loaded: { model } } = session;
  const { pageSize, headDim: d, numKvHeads, numQueryHeads } = pool.shape;
  const [views, group] = [model.activations.views(1), numQueryHeads / numKvHeads];
  const afterLayer = (layer: number): void => {
    const q = views.q.readFloats();
    const layerHeads = heads[layer] ?? [];
    const numPages = sequence.pages.length;
    loadPage(subject, layerHeads, numPages - 1, true);
    layerHeads.forEach((pages, kvHead) => {
      const queries = Array.from({ length: group }, (_, index) => {
        const start = (kvHead * group + index) * d;
        return q.slice(start, start + d);
      });
      const room = policy.budgetPages - SINK_PAGES - RECENT_PAGES;
      const search = { pages, queries, numPages, room };
      compare(arms, search, pageMass(search, sequence.length, pageSize));
    });
  };
  session.step([sequence], [id], policy, { afterLayer });
}

function report(arms: readonly Arm[], d: number, share: number): void {
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  const percent = (share: number): string => (100 * share).toFixed(2);
  const mass = (each: Arm): number => each.mass / sum(each.rows);
  const budget = arms[0] ? mass(arms[0]) : NaN;
  print(
    "| means | bytes per page (d 128) | agree % | worst layer % | dense softmax mass retained, difference to the first % |",
  );
  print("|---|---|---|---|---|");
  for (const each of arms) {
    const layers = each.agreed.map((agreed, layer) => agreed / (each.rows[layer] ?? 1));
    print(
      `| ${each.label} | ${each.bytes(d, share).toFixed(0)} | ${percent(sum(each.agreed) / sum(each.rows))} | ` +
        `${percent(Math.min(...layers))} | ${percent(mass(each))} (${percent(mass(each) - budget)}) |`,
    );
  }
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, { string: ["model", "context", "queries", "budget", "page-size"] });
  const number = (name: string, fallback: number): number => Number(flags[name] ?? fallback);
  const [context, queries] = [number("context", 16384), number("queries", 24)];
  const [budgetTokens, pageSize] = [number("budget", 512), number("page-size", 8)];
  const model = String(flags["model"] ?? fromFileUrl(new URL("../../models/default", import.meta.url)));
  await using engine = await Engine.load(model, { device: "cpu" });
  const subject = openSequence(engine, context + queries + 1, pageSize);
  using session = subject.session;
  const ids = proseIds(engine, String(flags._[0]), context + queries);
  const policy: PagePolicy = engine.policy({ mode: "on", budgetTokens, pageSize });
  await session.prefill(subject.sequence, ids.slice(0, context));
  const heads = loadHeads(subject, context + queries + 1);
  const arms = makeArms();
  for (const id of ids.slice(context)) traceStep(subject, policy, id, heads, arms);
  print(
    `commit ${await commit()}, context ${context}, ${queries} decode steps of ${heads.length} layers, page ${pageSize}, ` +
      `budget ${budgetTokens}, unique ${LAMBDA}; shares exclude pages that are always read\n`,
  );
  report(arms, 128, budgetTokens / context);
}

if (import.meta.main) await main();
