import { PagesiftError } from "../engine/errors.ts";
import { formatCount, plural } from "../engine/text/format.ts";
import type { BatchPiece, FinishReason, Verification } from "../engine/types.ts";
import { exhausted } from "./answer.ts";
import type { Output } from "./output.ts";

/** A line of a batch that got no request, because it is invalid or its prompt does not fit. */
const REFUSED = "refused";

/** A line of the output. */
class Answer {
  finish: FinishReason | typeof REFUSED | undefined;
  error: string | undefined;
  #verification: Verification | undefined;
  readonly ids: number[] = [];
  #text = "";

  /**
   * @param place position of the line in the input
   * @param own the user's own fields of the line, copied to the output
   */
  constructor(readonly place: string, readonly own: Readonly<Record<string, unknown>>) {}

  add(piece: BatchPiece): void {
    if (piece.id >= 0) this.ids.push(piece.id);
    this.#text += piece.text;
    if (piece.finish !== undefined) this.finish = piece.finish;
    if (piece.error !== undefined) this.error = piece.error;
    if (piece.verification !== undefined) this.#verification = piece.verification;
  }

  toLine(): string {
    const { own, ids, finish, error } = this;
    return JSON.stringify({ ...own, text: this.#text, ids, finish, error, verification: this.#verification }) + "\n";
  }
}

/** Collects the answers of a batch and prints each when it is done, or when all before it are done as well. */
export class BatchAnswers {
  /** In the order of the input. */
  readonly #all: Answer[] = [];
  /** Those that have a request, by its index. */
  readonly #requested: Answer[] = [];
  #refusal: PagesiftError["kind"] | undefined;
  #printed = 0;
  readonly #output: Output;
  readonly #ordered: boolean;

  constructor(output: Output, ordered: boolean) {
    this.#output = output;
    this.#ordered = ordered;
  }

  /** Adds the line of the next request. */
  add(place: string, own: Readonly<Record<string, unknown>>): void {
    const answer = new Answer(place, own);
    this.#all.push(answer);
    this.#requested.push(answer);
  }

  /** Adds a line that gets no request. */
  refuse(place: string, own: Readonly<Record<string, unknown>>, { kind, message }: PagesiftError): void {
    const answer = new Answer(place, own);
    [answer.finish, answer.error] = [REFUSED, message];
    this.#all.push(answer);
    this.#refusal ??= kind;
    this.#print(answer);
  }

  receive(piece: BatchPiece): void {
    const answer = this.#requested[piece.index]!;
    answer.add(piece);
    if (piece.finish !== undefined) this.#print(answer);
  }

  #print(done: Answer): void {
    if (!this.#ordered) return this.#output.result(done.toLine());
    for (let next = this.#all[this.#printed]; next?.finish; next = this.#all[++this.#printed]) {
      this.#output.result(next.toLine());
    }
  }

  get count(): number {
    return this.#all.length;
  }

  get newTokens(): number {
    return this.#all.reduce((sum, { ids }) => sum + ids.length, 0);
  }

  /** Reports the lines that have no complete answer; the others are printed and correct. @throws {PagesiftError} if there are some */
  check(): void {
    const failed = this.#all.filter(({ finish }) => finish === "numeric");
    for (const { place, error } of failed) this.#output.warn(`${place}: ${error}`);
    if (failed.length > 0) throw this.#incomplete("numeric", failed, "gave logits that are not finite", "numeric");
    const refused = this.#all.filter(({ finish }) => finish === REFUSED);
    if (this.#refusal) throw this.#incomplete(this.#refusal, refused, "got no answer", REFUSED);
    const starved = this.#all.find(({ finish }) => finish === "kv_exhausted");
    if (starved !== undefined) throw exhausted(starved.ids.length);
  }

  #incomplete(kind: PagesiftError["kind"], lines: readonly Answer[], what: string, finish: string): PagesiftError {
    const counts = `${formatCount(lines.length)} of ${plural(this.count, "prompt")}`;
    return new PagesiftError(kind, `${counts} ${what}; their lines have "finish":"${finish}"`);
  }
}
