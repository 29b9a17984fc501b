/**
 * The indices of some scores from best to worst, on ties by ascending index, sorted only as far as they are read: a
 * heap is built in O(V) and every further rank costs O(log V), so the top 40 of 150,000 need no full sort.
 */
export class Ranking {
  #scores = new Float32Array(0) as Float32Array;
  /** `[V]`: a binary heap in front, and behind it the ranks taken so far, rank 0 last. */
  #indices = new Uint32Array(0);
  #heapSize = 0;
  #length = 0;

  /** Ranks `scores` `[V]`; those of -Infinity are skipped. `scores` must not change while ranks are read. */
  reset(scores: Float32Array): void {
    this.#scores = scores;
    if (this.#indices.length < scores.length) this.#indices = new Uint32Array(scores.length);
    let size = 0;
    for (let index = 0; index < scores.length; index++) {
      if (scores[index]! > -Infinity) this.#indices[size++] = index;
    }
    this.#length = this.#heapSize = size;
    for (let parent = (size >> 1) - 1; parent >= 0; parent--) this.#siftDown(parent);
  }

  /** Number of ranked scores. */
  get length(): number {
    return this.#length;
  }

  /** The index of the score with `rank` (0 is the best) in [0, length). */
  at(rank: number): number {
    while (this.#length - this.#heapSize <= rank) this.#take();
    return this.#indices[this.#length - 1 - rank]!;
  }

  #take(): void {
    const last = --this.#heapSize;
    const best = this.#indices[0]!;
    this.#indices[0] = this.#indices[last]!;
    this.#indices[last] = best;
    this.#siftDown(0);
  }

  #siftDown(start: number): void {
    const moving = this.#indices[start]!;
    let parent = start;
    for (let child = 2 * parent + 1; child < this.#heapSize; child = 2 * parent + 1) {
      if (child + 1 < this.#heapSize && this.#isBefore(this.#indices[child + 1]!, this.#indices[child]!)) child++;
      if (!this.#isBefore(this.#indices[child]!, moving)) break;
      this.#indices[parent] = this.#indices[child]!;
      parent = child;
    }
    this.#indices[parent] = moving;
  }

  #isBefore(a: number, b: number): boolean {
    const difference = this.#scores[a]! - this.#scores[b]!;
    return difference > 0 || (difference === 0 && a < b);
  }
}
