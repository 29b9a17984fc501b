/** The operations of one layer's decode step as arms: parts, sparse as a whole, and dense. */
import type { Scorer } from "../engine/types.ts";
import type { ScoreOptions, Selection, SelectOptions } from "../ffi/kv_cache.ts";
import type { Counters } from "../ffi/structs.ts";
import type { Tensor } from "../ffi/tensor.ts";
import { kvRowBytes, scoredBytes, statisticsRowBytes } from "../engine/pages/kv_type.ts";
import { checkActivity } from "./activity.ts";
import type { Arm } from "./arms.ts";
import type { AttentionInputs } from "./attention_case.ts";
import { type AttentionCase, type AttentionPlan, pageBytes, pagesOf, rowsOf } from "./attention_plan.ts";

/** What an arm measures, for its row. */
export interface AttentionArm extends Arm {
  budgetTokens?: number;
  scorer?: string;
  /** Bytes per call, from the counters of all calls. */
  bytes: (counted: Counters) => number;
  /** What `calls` calls selected, one row per call and sequence; only for arms that select. */
  selection?: Selection;
}

/** On a GPU, an arm runs long enough that launch and wait are negligible. */
const LEAST_CALLS = { recorded: 64, recordedLarge: 16, direct: 1 } as const;
const LARGE_BYTES = 1 << 30;

/** Builds the arms of one filled cache. */
export class AttentionArms {
  readonly #rows: number;
  readonly #pages: number;
  readonly #least: number;

  constructor(
    readonly wanted: AttentionCase,
    readonly plan: AttentionPlan,
    readonly inputs: AttentionInputs,
    records: boolean,
  ) {
    this.#rows = rowsOf(wanted);
    this.#pages = pagesOf(wanted);
    const large = this.#rows * this.#pages * pageBytes(wanted) > LARGE_BYTES;
    this.#least = !records ? LEAST_CALLS.direct : large ? LEAST_CALLS.recordedLarge : LEAST_CALLS.recorded;
  }

  /** Sparse arms come before the arms that attend to their selection. */
  all(): AttentionArm[] {
    const selecting = this.wanted.scorers.flatMap((scorer) => {
      const scores = this.inputs.create("f32", [this.wanted.batch, this.wanted.kvHeads, this.#pages]);
      const budgets = this.wanted.budgets.flatMap((budget) => this.#budgetArms(scorer, budget, scores));
      return [this.#score(scorer, scores), ...budgets];
    });
    return [this.#dense(), this.#append(), ...selecting];
  }

  /** A number of calls that visits all layers equally often, with `queries` queries each. */
  #calls(queries: number): number {
    const turn = this.inputs.cache.shape.numLayers * queries;
    return turn * Math.ceil(this.#least / turn);
  }

  /** Layer and query of a call; both rotate, and every pair occurs. */
  #place(call: number): [layer: number, query: Tensor] {
    const { cache: { shape: { numLayers } }, queries } = this.inputs;
    const query = queries[Math.floor(call / numLayers) % queries.length];
    return [call % numLayers, query ?? queries[0]!];
  }

  #dense(): AttentionArm {
    const { cache, tables, out } = this.inputs;
    const calls = this.#calls(1);
    return {
      name: "dense",
      calls,
      operation: (call) => cache.attend(...this.#place(call), tables, out),
      check: (counted) => checkActivity({ arm: "dense", calls, rows: this.#rows, chosenPages: undefined }, counted),
      bytes: ({ pagesAttended }) => pagesAttended / calls * pageBytes(this.wanted),
    };
  }

  /**
   * One token per sequence, in the last slot: reads keys and values, writes them, reads the page again, writes its
   * statistics.
   */
  #append(): AttentionArm {
    const { cache, lastKeys, lastSlots } = this.inputs;
    const { headDim, pageSize, dtype, scorers } = this.wanted;
    const statistics = scorers.reduce((sum, scorer) => Math.max(sum, statisticsRowBytes(scorer, headDim, dtype)), 0);
    const bytes = this.#rows * (8 * headDim + (2 + pageSize) * kvRowBytes({ dtype }, headDim) + statistics);
    return {
      name: "append",
      calls: this.#calls(1),
      scorer: scorers.join("+"),
      operation: (call) => cache.append(this.#place(call)[0], lastKeys, lastKeys, lastSlots),
      check: () => {},
      bytes: () => bytes,
    };
  }

  #score(scorer: Scorer, scores: Tensor): AttentionArm {
    const { cache, tables } = this.inputs;
    const calls = this.#calls(1);
    return {
      name: "score",
      scorer,
      calls,
      operation: (call) => cache.scorePages(...this.#place(call), tables, scores, this.#options(scorer)),
      check: () => {},
      bytes: (counted) => scoredBytes(scorer, this.wanted, counted) / calls,
    };
  }

  #budgetArms(scorer: Scorer, budgetTokens: number, scores: Tensor): AttentionArm[] {
    const { batch, kvHeads, pageSize } = this.wanted;
    const calls = this.#calls(this.inputs.queries.length);
    const k = budgetTokens / pageSize;
    const selection = {
      selected: this.inputs.create("i32", [calls * batch, kvHeads, k]),
      counts: this.inputs.create("i32", [calls * batch, kvHeads]),
    };
    const about = { scorer, budgetTokens };
    const sparse = { ...this.#sparse(scorer, k, calls, scores, selection), ...about, selection };
    return [sparse, { ...this.#select(k, scores), ...about }, {
      ...this.#attend(k, calls, selection),
      ...about,
      selection,
    }];
  }

  #sparse(scorer: Scorer, k: number, calls: number, scores: Tensor, selection: Selection): AttentionArm {
    const { cache, tables, out } = this.inputs;
    return {
      name: "sparse",
      calls,
      operation: (call) => {
        const chosen = { scores, selection: this.#part(selection, call) };
        cache.attendSparse(...this.#place(call), tables, chosen, out, this.#options(scorer));
      },
      check: (counted) => checkActivity({ arm: "sparse", calls, rows: this.#rows, chosenPages: k }, counted),
      bytes: (counted) =>
        (counted.pagesAttended * pageBytes(this.wanted) + scoredBytes(scorer, this.wanted, counted)) / calls,
    };
  }

  /** Selects from the scores that were written last, so they are in a cache, as in a decode step. */
  #select(k: number, scores: Tensor): AttentionArm {
    const { cache, tables } = this.inputs;
    const { batch, kvHeads } = this.wanted;
    const selection = {
      selected: this.inputs.create("i32", [batch, kvHeads, k]),
      counts: this.inputs.create("i32", [batch, kvHeads]),
    };
    const options = this.#forced();
    return {
      name: "select",
      calls: this.#calls(1),
      operation: () => cache.selectPages(scores, tables.lengths, selection, options),
      check: () => {},
      bytes: () => 4 * this.#rows * this.#pages,
    };
  }

  #attend(k: number, calls: number, selection: Selection): AttentionArm {
    const { cache, tables, out } = this.inputs;
    return {
      name: "attend",
      calls,
      operation: (call) => cache.attend(...this.#place(call), tables, out, { selection: this.#part(selection, call) }),
      check: ({ pagesAttended }) => checkRead("attend", pagesAttended, calls * this.#rows * k),
      bytes: ({ pagesAttended }) => pagesAttended / calls * pageBytes(this.wanted),
    };
  }

  #part({ selected, counts }: Selection, call: number): Selection {
    const { batch } = this.wanted;
    return { selected: selected.rows(call * batch, batch), counts: counts.rows(call * batch, batch) };
  }

  #forced(): SelectOptions {
    return { sinkPages: this.plan.sinkPages, recentPages: this.plan.recentPages };
  }

  #options(scorer: Scorer): ScoreOptions & SelectOptions {
    const { lambda } = this.plan;
    const weight = lambda === undefined || scorer === "mean" || scorer === "quest" ? {} : { lambda };
    return { scorer, ...weight, ...this.#forced() };
  }
}

function checkRead(arm: string, pages: number, expected: number): void {
  if (pages !== expected) throw new Error(`The ${arm} arm read ${pages} pages, expected ${expected}`);
}
