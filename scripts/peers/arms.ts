/** Ours and llama.cpp as alternating arms: the same ids, the same depths, decode steps of one token each. */
import { fromFileUrl } from "@std/path";
import type { Engine } from "../../engine/engine.ts";
import type { PagePolicy } from "../../engine/pages/page_policy.ts";
import type { Sequence } from "../../engine/pages/sequence.ts";
import { kvName } from "../../engine/pages/kv_type.ts";
import type { Session } from "../../engine/session.ts";
import { openSequence } from "../studies/measure.ts";
import type { SparseOptions } from "../../engine/types.ts";
import type { LlamaCpp } from "./llama_cpp/client.ts";
import type { ContextOptions } from "./llama_cpp/shim.ts";

/** Something that prefills tokens and decodes. */
export interface PeerArm {
  readonly name: string;
  /** Its settings, for rows and tables. */
  readonly settings: string;
  /** Dtype of keys and values. */
  readonly dtype: string;
  /** Whether it is another program. */
  readonly isPeer: boolean;
  /** Appends ids after the first `at` tokens. Returns seconds. */
  append(at: number, ids: readonly number[]): Promise<number>;
  /**
   * Decodes ids one by one after the first `at` tokens; the first is a warm-up. Returns the total seconds of the
   * others.
   */
  decode(at: number, ids: readonly number[]): Promise<number>;
}

/** llama.cpp with flash attention on or off. */
export class LlamaCppArm implements PeerArm {
  readonly name = "llama.cpp";
  readonly isPeer = true;
  readonly settings: string;
  readonly dtype: string;

  private constructor(readonly peer: LlamaCpp, readonly id: string, options: ContextOptions) {
    this.dtype = options.kv.toLowerCase();
    this.settings = `${this.dtype}, flash attention ${options.flash ? "on" : "off"}`;
  }

  /** @throws {Error} if llama.cpp uses another number of threads */
  static async open(peer: LlamaCpp, options: ContextOptions): Promise<LlamaCppArm> {
    const id = `${options.kv} ${options.flash}`;
    const threads = await peer.open(id, options);
    if (threads !== options.threads) throw new Error(`llama.cpp uses ${threads} threads instead of ${options.threads}`);
    return new LlamaCppArm(peer, id, options);
  }

  append(at: number, ids: readonly number[]): Promise<number> {
    return this.peer.append(this.id, at, ids);
  }

  decode(at: number, ids: readonly number[]): Promise<number> {
    return this.peer.decode(this.id, at, ids);
  }
}

/** Ours under one policy. Arms of one session share its KV cache, so only the dense one prefills prompts. */
export class OurArm implements PeerArm {
  readonly isPeer = false;
  readonly settings: string;
  readonly dtype: string;

  /** @param budgetTokens the budget of a sparse policy; undefined for a dense one */
  constructor(
    readonly name: string,
    readonly session: Session,
    readonly sequence: Sequence,
    readonly policy: PagePolicy,
    readonly budgetTokens?: number,
  ) {
    this.dtype = kvName(session.loaded.kv);
    this.settings = budgetTokens === undefined ? this.dtype : `${this.dtype}, budget ${budgetTokens}`;
  }

  async append(at: number, ids: readonly number[]): Promise<number> {
    if (at !== this.sequence.length) this.session.truncate(this.sequence, at);
    const started = performance.now();
    await this.session.prefill(this.sequence, ids);
    return (performance.now() - started) / 1000;
  }

  /** @throws {Error} if the native counters show a selection in a dense arm, or none in a sparse one */
  decode(at: number, ids: readonly number[]): Promise<number> {
    const { session, sequence, policy } = this;
    const step = (id: number): number => session.step([sequence], [id], policy).best.readInts()[0] ?? -1;
    session.truncate(sequence, at);
    step(ids[0] ?? 0);
    const before = session.counters().rowsSelected;
    const started = performance.now();
    for (const id of ids.slice(1)) step(id);
    const seconds = (performance.now() - started) / 1000;
    const selected = session.counters().rowsSelected > before;
    if (selected !== (this.budgetTokens !== undefined)) {
      throw new Error(`${this.name} ${selected ? "selected pages" : "never selected"}`);
    }
    session.truncate(sequence, at);
    return Promise.resolve(seconds);
  }
}

/** Arms of one session, which is closed after them. */
export interface OurArms {
  session: Session;
  arms: OurArm[];
}

/** Ours, dense and sparse, over one cache of `maxTokens`. */
export function ourArms(engine: Engine, maxTokens: number, budgetTokens: number): OurArms {
  const { session, sequence } = openSequence(engine, maxTokens);
  const policy = (sparse: SparseOptions): PagePolicy => engine.policy({ pageSize: session.policy.pageSize, ...sparse });
  const dense = new OurArm("dense", session, sequence, policy({ mode: "off" }));
  const sparse = new OurArm("sparse", session, sequence, policy({ mode: "on", budgetTokens }), budgetTokens);
  return { session, arms: [dense, sparse] };
}

/** A text file with the lines of a paragraph joined; the example text if none is named. */
export function readText(file: string | undefined): string {
  const path = file ?? fromFileUrl(new URL("../../examples/war_of_the_worlds.txt", import.meta.url));
  return Deno.readTextFileSync(path).replaceAll(/(?<!\n)\r?\n(?!\r?\n)/g, " ");
}

/** Ids of a text file, repeated if it has fewer than `tokens` tokens. */
export function repeatedIds(engine: Engine, file: string | undefined, tokens: number): number[] {
  const ids = engine.tokenizer.encode(readText(file).slice(0, tokens * 6));
  return Array.from({ length: tokens }, (_, index) => ids[index % ids.length] ?? 0);
}
