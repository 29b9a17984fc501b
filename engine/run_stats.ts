import type { Counters } from "../ffi/structs.ts";
import type { KvPool } from "./pages/kv_pool.ts";
import { countSparseLayers, type PagePolicy } from "./pages/page_policy.ts";
import type { SavedPrompts } from "./saved_prompts.ts";
import type { EngineStats, FinishReason } from "./types.ts";

/** What stays the same for all runs of an engine. */
export interface EngineFacts {
  device: string;
  weightBytes: number;
  maxContext: number;
}

/** The stats before anything ran. */
export function emptyStats(facts: EngineFacts): EngineStats {
  return {
    ...facts,
    ...{
      promptTokens: 0,
      reusedTokens: 0,
      prefillTokens: 0,
      prefillSeconds: 0,
      decodeTokens: 0,
      decodeSeconds: 0,
      firstTokenSeconds: 0,
    },
    ...{
      decodeSteps: 0,
      selectedSteps: 0,
      pagesRead: 0,
      pagesDense: 0,
      bytesRead: 0,
      bytesDense: 0,
      promptPagesRead: 0,
      promptPagesDense: 0,
      statisticsBytes: 0,
    },
    ...{ peakKvBytes: 0, contextTokens: 0, finishReason: undefined },
  };
}

/** Measures one run. Pages and selections are the native counters' differences, never what TypeScript expects. */
export class RunStats {
  readonly #stats: EngineStats;
  readonly #started = performance.now();
  /** Counts from here on belong to the run; it moves by what is excluded. */
  #zero: Counters = {
    ...{ rowsSelected: 0, pagesScored: 0, pagesAttended: 0, pagesInContext: 0, selections: 0 },
    ...{ promptPagesScored: 0, promptPagesAttended: 0, promptPagesVisible: 0, copiesScored: 0 },
  };

  constructor(
    facts: EngineFacts,
    readonly pool: KvPool,
    readonly policy: PagePolicy,
    readonly savedPrompts?: SavedPrompts,
    selectsFromTokens?: number | null,
  ) {
    this.#stats = { ...emptyStats(facts), ...selectsFromTokens !== undefined && { selectsFromTokens } };
    pool.cache.resetCounters();
    pool.allocator.resetPeak();
  }

  /** A prompt of `tokens` tokens, of which `reused` were in the cache. */
  prefilled(tokens: number, reused: number, seconds: number): void {
    this.#stats.promptTokens += tokens;
    this.#stats.reusedTokens += reused;
    this.#stats.prefillTokens += tokens - reused;
    this.#stats.prefillSeconds += seconds;
    if (this.#stats.firstTokenSeconds === 0) this.#stats.firstTokenSeconds = (performance.now() - this.#started) / 1000;
    this.contextReached(tokens);
  }

  /** One decode step that gave `tokens` tokens. */
  decoded(tokens: number, seconds: number): void {
    this.#stats.decodeSteps++;
    this.#stats.decodeTokens += tokens;
    this.#stats.decodeSeconds += seconds;
  }

  contextReached(tokens: number): void {
    this.#stats.contextTokens = Math.max(this.#stats.contextTokens, tokens);
  }

  /** Leaves out what the native library counted between two readings of its counters. */
  exclude(from: Counters, to: Counters): void {
    this.#zero = countedBetween(countedBetween(to, from), this.#zero);
  }

  finished(reason: FinishReason): void {
    this.#stats.finishReason = reason;
  }

  /** The stats so far. */
  snapshot(): EngineStats {
    const promptCache = this.savedPrompts?.stats;
    const stats = { ...this.#stats, ...promptCache && { promptCache } };
    if (this.pool.cache.closed) return stats;
    const counters = countedBetween(this.#zero, this.pool.cache.counters());
    return { ...stats, ...this.#traffic(counters), peakKvBytes: this.pool.peakKvBytes };
  }

  #traffic(counters: Counters): Partial<EngineStats> {
    const { pageBytes } = this.pool;
    return {
      // Every sparse layer of a step selects once.
      selectedSteps: counters.selections / Math.max(1, countSparseLayers(this.policy)),
      pagesRead: counters.pagesAttended,
      pagesDense: counters.pagesInContext,
      bytesRead: counters.pagesAttended * pageBytes,
      bytesDense: counters.pagesInContext * pageBytes,
      promptPagesRead: counters.promptPagesAttended,
      promptPagesDense: counters.promptPagesVisible,
      statisticsBytes: this.pool.statisticsBytes(this.policy, counters),
    };
  }
}

/** The second counters minus the first. */
export function countedBetween(before: Counters, after: Counters): Counters {
  const names = Object.keys(after) as (keyof Counters)[];
  return Object.fromEntries(names.map((name) => [name, after[name] - before[name]])) as unknown as Counters;
}
