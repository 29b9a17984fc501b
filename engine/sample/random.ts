/** Seeds are unsigned 32-bit integers: 0 up to, but not including, this. */
export const SEED_LIMIT = 2 ** 32;

/** A seed that nobody chose, in [0, 2^32). */
export function randomSeed(): number {
  const [seed = 0] = crypto.getRandomValues(new Uint32Array(1));
  return seed;
}

/**
 * Seeded generator: xoshiro128** 1.1 by David Blackman and Sebastiano Vigna (public domain), its four state words filled
 * from the seed by a Weyl sequence under the finaliser of MurmurHash3 (Austin Appleby, public domain), so that close
 * seeds give unrelated streams. The same seed produces the same draws on every machine.
 */
export class Random {
  readonly #state: [number, number, number, number];

  /** `seed` is an integer in [0, 2^32). */
  constructor(seed: number) {
    this.#state = [mix(seed, 1), mix(seed, 2), mix(seed, 3), mix(seed, 4)];
  }

  /** Uniform integer in [0, 2^32). */
  nextUint32(): number {
    const [a, b, c, d] = this.#state;
    this.#state[0] = a ^ d ^ b;
    this.#state[1] = b ^ c ^ a;
    this.#state[2] = c ^ a ^ (b << 9);
    this.#state[3] = rotateLeft(d ^ b, 11);
    return Math.imul(rotateLeft(Math.imul(b, 5), 7), 9) >>> 0;
  }

  /** Uniform number in [0, 1) of 53 random bits. */
  nextFloat(): number {
    const high = this.nextUint32() >>> 5;
    const low = this.nextUint32() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }
}

function rotateLeft(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}

function mix(seed: number, index: number): number {
  let word = seed + Math.imul(index, 0x9e3779b9);
  word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
  return word ^ (word >>> 16);
}
