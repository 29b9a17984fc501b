/**
 * `bench quality` with one more way to rank pages: `diag` with the L1 form of its spread, q.mean + weight * sum over dimensions of
 * |q| std. It ranks one document in f64 from the statistics in the cache, so its times say nothing. The rows are those of `bench quality`,
 * one JSON line each; the L1 form is an arm "oracle" whose scorer is "l1:1".
 *
 *     deno run -A scripts/studies/spread_forms.ts BOOK -m MODEL [--weights 1] [--task prose] [--length 16384] [--budget 256,512]
 *         [--scorer diag:2] [--prose 64] [--facts 6]
 */
import { parseArgs } from "@std/cli/parse-args";
import { basename } from "@std/path";
import { proseIds } from "../../bench/documents.ts";
import { benchQuality, proseNeed } from "../../bench/quality.ts";
import { planQuality, type QualityArm, type RankPages } from "../../bench/quality_plan.ts";
import { Engine } from "../../engine/engine.ts";
import { print } from "../output.ts";
import { commit } from "./measure.ts";

/** `[Hk * d]` each. */
interface Statistics {
  mean: Float32Array;
  std: Float32Array;
}

/** Ranks by the L1 form. The first `fixedPages` pages are those of the document, which are read once per layer. */
function rankL1(weight: number, fixedPages: number): RankPages {
  const fixed = new Map<number, Statistics[]>();
  return (cache, layer, q, pages) => {
    const { numQueryHeads, numKvHeads, headDim: d } = cache.shape;
    const group = numQueryHeads / numKvHeads;
    const read = (page: number): Statistics => ({
      mean: cache.readPage(layer, page, "mean"),
      std: cache.readPage(layer, page, "var").map(Math.sqrt),
    });
    const document = fixed.getOrInsertComputed(layer, () => pages.slice(0, fixedPages).map(read));
    const statistics = [...document, ...pages.slice(fixedPages).map(read)];
    const queries = q.readFloats();
    return Array.from({ length: numKvHeads }, (_, head) => {
      const best = new Float64Array(pages.length).fill(-Infinity);
      for (let query = head * group; query < (head + 1) * group; query++) {
        const row = queries.subarray(query * d, (query + 1) * d);
        statistics.forEach((page, at) => best[at] = Math.max(best[at] ?? 0, scoreOf(row, page, head * d, weight)));
      }
      return best;
    });
  };
}

function scoreOf(row: Float32Array, { mean, std }: Statistics, offset: number, weight: number): number {
  let [centre, spread] = [0, 0];
  for (let dim = 0; dim < row.length; dim++) {
    const x = row[dim] as number;
    centre += x * (mean[offset + dim] as number);
    spread += Math.abs(x) * (std[offset + dim] as number);
  }
  return centre + weight * spread;
}

const flags = parseArgs(Deno.args, {
  string: ["model", "weights", "task", "length", "budget", "scorer", "prose", "facts"],
  alias: { m: "model" },
});
const [book, model] = [String(flags._[0]), String(flags.model)];
const length = Number(flags.length ?? 16384);
await using engine = await Engine.load(model, { device: "cpu" });
const { tokenizer } = engine;
const source = { commit: await commit(), book: basename(book) };

for (const task of String(flags.task ?? "prose").split(",")) {
  const plan = planQuality({
    ...{
      task,
      length: String(length),
      budget: String(flags.budget ?? "256,512"),
      scorer: String(flags.scorer ?? "diag:2"),
    },
    ...{ pageSize: "8", documents: 1, facts: Number(flags.facts ?? 6), proseTokens: Number(flags.prose ?? 64) },
    ...{ seed: 1, chat: false, levels: undefined, lambda: undefined },
    ...{ sinkPages: 1, recentPages: 2, denseLayers: 0, prefillBudget: 0 },
  });
  const passes = plan.passes.map(({ arms, pageSize }) => ({
    pageSize,
    arms: [...arms, ...l1Arms(arms, length / pageSize)],
  }));
  const material = {
    prose: proseIds(tokenizer, book, Deno.readTextFileSync(book), proseNeed(plan)),
    encode: (prompt: string, start: string): number[] => tokenizer.encode(`${prompt}\n${start}`),
    files: [],
  };
  for await (const rows of benchQuality(engine, basename(model), { ...plan, passes }, material)) {
    for (const row of rows) print(JSON.stringify({ ...row, ...source }));
  }
}

function l1Arms(arms: readonly QualityArm[], pages: number): QualityArm[] {
  return String(flags.weights ?? "1").split(",").flatMap((weight) =>
    arms.filter(({ name }) => name === "oracle").map((arm): QualityArm => ({
      ...arm,
      scorer: `l1:${weight}`,
      rank: rankL1(Number(weight), Math.floor(pages)),
    }))
  );
}
