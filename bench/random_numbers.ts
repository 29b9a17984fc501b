/** Random numbers to fill memory: the same in every run, never zeros, and fast enough for gigabytes. */

const BLOCK_BYTES = 64 << 20;

/** Fast random words, the same in every run. */
export function wordsFrom(seed: number): () => number {
  let word = seed;
  return () => {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    return word >>> 0;
  };
}

/** Uniform noise with mean 0 and this standard deviation. */
export function noiseFrom(seed: number): (deviation: number) => number {
  const next = wordsFrom(seed);
  return (deviation) => (next() / 2 ** 32 - 0.5) * deviation * Math.sqrt(12);
}

/** Numbers of either sign between 2^-7 and 2^-5, in bf16. */
export function randomBlock(): Uint16Array<ArrayBuffer> {
  const next = wordsFrom(1);
  const block = new Uint16Array(BLOCK_BYTES / 2);
  for (let index = 0; index < block.length; index++) {
    const word = next() >>> 8;
    block[index] = 0x3c00 + (word & 0xff) | (word & 0x100) << 7;
  }
  return block;
}

/** Repeats the block until `bytes` bytes are written. */
export function writeRepeated(
  write: (piece: Uint16Array<ArrayBuffer>, atBytes: number) => void,
  block: Uint16Array<ArrayBuffer>,
  bytes: number,
): void {
  for (let done = 0; done < bytes; done += block.byteLength) {
    write(block.subarray(0, Math.min(block.byteLength, bytes - done) / 2), done);
  }
}

/**
 * Keys or values `[tokens, width]`: noise with a standard deviation of 0.7 around means that drift from page to page, so that
 * keys resemble those of the same page and of neighbouring pages. `drift` 0 gives plain noise.
 */
export function randomTokens(
  tokens: number,
  width: number,
  pageSize: number,
  drift: number,
): Float32Array<ArrayBuffer> {
  const noise = noiseFrom(7 + drift);
  const out = new Float32Array(tokens * width);
  const means = new Float32Array(width).map(() => noise(drift));
  for (let token = 0; token < tokens; token++) {
    const turned = token % pageSize === 0;
    for (let dim = 0; dim < width; dim++) {
      if (turned) means[dim] = 0.95 * (means[dim] ?? 0) + noise(0.31 * drift);
      out[token * width + dim] = (means[dim] ?? 0) + noise(0.7);
    }
  }
  return out;
}
