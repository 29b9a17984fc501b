import type { DecodeStep, StepObserver } from "../engine/decode_batch.ts";
import type { KvPool } from "../engine/pages/kv_pool.ts";
import type { PagePolicy } from "../engine/pages/page_policy.ts";
import type { Tensor } from "../ffi/tensor.ts";
import { massCode, scoreCode } from "./codes.ts";
import type { ComparedScorer, Comparison, LayerKind, Totals } from "./recording.ts";
import { RowLog } from "./row_log.ts";
import { countShared, rowFigures, standardize, sumOver, toRow } from "./row_math.ts";
import { PageProbe, readSelection } from "./scorers.ts";

/** One step in one layer, by KV head. */
interface LayerView {
  kind: LayerKind;
  pages: number;
  /** `[Hk, M]` */
  mass: Float32Array<ArrayBuffer>;
  scores: Float32Array | undefined;
  /** Undefined if all pages were read. */
  selected: Int32Array[] | undefined;
  wanted: Int32Array[];
}

/**
 * Observes the decode steps of one sequence. For every layer it computes scores and exact attention masses and records which pages
 * were read, which have the most mass, and sums over the steps.
 */
export class PageObserver implements StepObserver, Disposable {
  /** `[L, H, M]`, sums over the steps. */
  readonly #mass: Float32Array;
  readonly #score: Float32Array;
  readonly rows = new RowLog();
  readonly #figures: number[] = [];
  readonly #compared: number[] = [];
  readonly #probe: PageProbe;
  readonly #compare: readonly ComparedScorer[];
  #lengthTokens = 0;
  #selectedStep = -1;
  /** Steps that skipped at least one page. */
  selectedSteps = 0;
  /** KV pages read by attention, and by dense attention in its place, over all rows. */
  pagesRead = 0;
  pagesDense = 0;

  constructor(readonly pool: KvPool, readonly policy: PagePolicy, compare: readonly ComparedScorer[] = []) {
    this.#probe = new PageProbe(pool, policy);
    this.#compare = compare;
    const { numLayers, numKvHeads } = pool.shape;
    const numbers = numLayers * numKvHeads * this.#probe.columns;
    this.#mass = new Float32Array(numbers);
    this.#score = new Float32Array(numbers);
  }

  /** Steps observed to the last layer. */
  get steps(): number {
    const { numLayers, numKvHeads } = this.pool.shape;
    return Math.floor(this.rows.length / (numLayers * numKvHeads));
  }

  /** Means over the steps, for the first `pages` pages. */
  totals(pages: number): Totals {
    const [rows, columns] = [this.#mass.length / this.#columns, this.#columns];
    const totals = { mass: new Uint16Array(rows * pages), score: new Uint16Array(rows * pages) };
    for (let row = 0; row < rows; row++) {
      for (let page = 0; page < pages; page++) {
        totals.mass[row * pages + page] = massCode(this.#mass[row * columns + page]! / this.steps);
        totals.score[row * pages + page] = scoreCode(this.#score[row * columns + page]! / this.steps);
      }
    }
    return totals;
  }

  get #columns(): number {
    return this.#probe.columns;
  }

  /** In the layout of `Recording.figures`. */
  get figures(): Float32Array {
    return Float32Array.from(this.#figures);
  }

  get comparison(): Comparison | undefined {
    if (this.#compare.length === 0) return undefined;
    return { scorers: this.#compare, figures: Float32Array.from(this.#compared) };
  }

  afterAttention(layer: number, q: Tensor, step: DecodeStep): void {
    if (layer === 0) this.#lengthTokens = step.sequences.lengths.readInts()[0] ?? 0;
    const view = this.#look(layer, q, step);
    for (let head = 0; head < this.pool.shape.numKvHeads; head++) this.#keep(layer, head, view);
    this.#compareScorers(layer, q, step, view);
  }

  #look(layer: number, q: Tensor, step: DecodeStep): LayerView {
    const rule = this.policy.layers[layer] ?? { kind: "dense" };
    const mass = this.#probe.mass(layer, q, step, rule.kind === "window" ? rule.tokens : 0);
    const selects = rule.kind === "sparse" && step.selecting;
    return {
      kind: rule.kind,
      pages: Math.ceil(this.#lengthTokens / this.policy.pageSize),
      mass,
      scores: rule.kind === "window" ? undefined : this.#probe.scores(layer, q, step, this.policy),
      selected: selects ? readSelection(selects.selection) : undefined,
      wanted: this.#probe.best(mass, step),
    };
  }

  #keep(layer: number, head: number, view: LayerView): void {
    const from = head * this.#columns;
    const mass = view.mass.subarray(from, from + view.pages);
    const score = view.scores && standardize(view.scores.subarray(from, from + view.pages));
    const first = (layer * this.pool.shape.numKvHeads + head) * this.#columns;
    for (let page = 0; page < view.pages; page++) {
      this.#mass[first + page]! += mass[page]!;
      if (score) this.#score[first + page]! += score[page]!;
    }
    const row = { mass, score, selected: view.selected?.[head], wanted: view.wanted[head] ?? new Int32Array() };
    this.#count(row.selected?.length ?? view.pages, view);
    this.rows.add(toRow(row));
    const { kept, best, found, wanted } = rowFigures(row, (page) => this.#isForced(page, view.pages));
    this.#figures.push(...view.kind === "window" ? [NaN, NaN, NaN, NaN] : [kept, best, found, wanted]);
  }

  /** Counts the pages in the selection that the kernels wrote, not the pages requested. */
  #count(read: number, { kind, pages }: LayerView): void {
    if (kind === "window") return;
    this.pagesRead += read;
    this.pagesDense += pages;
    if (read === pages || this.#selectedStep === this.steps) return;
    this.#selectedStep = this.steps;
    this.selectedSteps++;
  }

  #compareScorers(
    layer: number,
    q: Tensor,
    step: DecodeStep,
    { kind, pages, mass, selected, wanted }: LayerView,
  ): void {
    if (this.#compare.length === 0) return;
    const chosen = this.#compare.map((scorer) => {
      if (scorer === "oracle" || kind === "window") return wanted;
      const own = scorer === this.policy.scorer ? { lambda: this.policy.lambda } : {};
      return this.#probe.chosenBy(layer, q, step, { scorer, ...own });
    });
    for (let head = 0; head < this.pool.shape.numKvHeads; head++) {
      const from = head * this.#columns;
      const shares = mass.subarray(from, from + pages);
      for (const byHead of chosen) {
        const own = byHead[head] ?? new Int32Array();
        const isForced = (page: number): boolean => this.#isForced(page, pages);
        const found = countShared(wanted[head] ?? own, own, isForced);
        const shared = countShared(own, selected?.[head], isForced);
        this.#compared.push(...kind === "window" ? [NaN, NaN, NaN] : [sumOver(shares, own), found, shared]);
      }
    }
  }

  #isForced(page: number, pages: number): boolean {
    return page < this.policy.sinkPages || page >= pages - this.policy.recentPages;
  }

  [Symbol.dispose](): void {
    this.#probe[Symbol.dispose]();
  }
}
