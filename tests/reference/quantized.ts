/** Weights in blocks, one number at a time, as ggml's reference code writes and reads them; its float32 arithmetic step by step. */
import { BLOCKS, type DType } from "../../ffi/structs.ts";

export type BlockType = Exclude<DType, "f32" | "f16" | "bf16" | "i32">;
export const BLOCK_TYPES: readonly BlockType[] = [
  ...["q8_0", "q4_0", "q4_1", "q5_0", "q5_1"] as const,
  ...["q4_k", "q5_k", "q6_k", "f8"] as const,
];
export type Quantizable = "q8_0" | "q4_0" | "q4_1" | "q5_0" | "q5_1";
export const QUANTIZABLE: readonly Quantizable[] = ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1"];

const f = Math.fround;

/** A block, by its bytes. */
class Block {
  readonly #view: DataView;

  constructor(readonly bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  half(at: number): number {
    return this.#view.getFloat16(at, true);
  }

  setHalf(at: number, value: number): void {
    this.#view.setFloat16(at, value, true);
  }

  word(at: number): number {
    return this.#view.getUint32(at, true);
  }

  setWord(at: number, value: number): void {
    this.#view.setUint32(at, value >>> 0, true);
  }

  float(at: number): number {
    return this.#view.getFloat32(at, true);
  }

  signed(at: number): number {
    return this.#view.getInt8(at);
  }

  byte(at: number): number {
    return this.bytes[at]!;
  }

  /** Number i of 32 in 16 bytes: the first half in the low 4 bits. */
  nibble(at: number, i: number): number {
    return (this.byte(at + i % 16) >> (i < 16 ? 0 : 4)) & 15;
  }
}

/** The 6-bit scale and minimum of a group of a K block, whose twelve bytes begin at `at`. */
function groupScale(block: Block, at: number, group: number): [scale: number, min: number] {
  const q = (i: number): number => block.byte(at + i);
  if (group < 4) return [q(group) & 63, q(group + 4) & 63];
  return [(q(group + 4) & 15) | (q(group - 4) >> 6 << 4), (q(group + 4) >> 4) | (q(group) >> 6 << 4)];
}

function e4m3(bits: number): number {
  const [exponent, mantissa] = [bits >> 3 & 15, bits & 7];
  const magnitude = exponent === 15 && mantissa === 7
    ? NaN
    : exponent === 0
    ? mantissa * 2 ** -9
    : (8 + mantissa) * 2 ** (exponent - 10);
  return bits & 128 ? -magnitude : magnitude;
}

/** Number i of a block. */
const READ: Readonly<Record<BlockType, (block: Block, i: number) => number>> = {
  q8_0: (b, i) => b.signed(2 + i) * b.half(0),
  q4_0: (b, i) => (b.nibble(2, i) - 8) * b.half(0),
  q4_1: (b, i) => f(f(b.nibble(4, i) * b.half(0)) + b.half(2)),
  q5_0: (b, i) => ((b.nibble(6, i) | (b.word(2) >>> i & 1) << 4) - 16) * b.half(0),
  q5_1: (b, i) => f(f((b.nibble(8, i) | (b.word(4) >>> i & 1) << 4) * b.half(0)) + b.half(2)),
  q4_k: (b, i) => {
    const group = Math.floor(i / 32);
    const [scale, min] = groupScale(b, 4, group);
    const q = b.byte(16 + 32 * (group >> 1) + i % 32) >> (group & 1 ? 4 : 0) & 15;
    return f(f(f(b.half(0) * scale) * q) - f(b.half(2) * min));
  },
  q5_k: (b, i) => {
    const group = Math.floor(i / 32);
    const [scale, min] = groupScale(b, 4, group);
    const low = b.byte(48 + 32 * (group >> 1) + i % 32) >> (group & 1 ? 4 : 0) & 15;
    const q = low + 16 * (b.byte(16 + i % 32) >> group & 1);
    return f(f(f(b.half(0) * scale) * q) - f(b.half(2) * min));
  },
  q6_k: (b, i) => {
    const [half, quarter, l] = [i >> 7, i >> 5 & 3, i % 32];
    const low = b.byte(64 * half + 32 * (quarter & 1) + l) >> (quarter & 2 ? 4 : 0) & 15;
    const high = b.byte(128 + 32 * half + l) >> 2 * quarter & 3;
    return f(f(b.half(208) * b.signed(192 + (i >> 4))) * ((low | high << 4) - 32));
  },
  f8: (b, i) => f(e4m3(b.byte(i)) * b.float(128)),
};

/** The numbers of whole blocks. */
export function dequantize(type: BlockType, bytes: Uint8Array): Float32Array<ArrayBuffer> {
  const { numbers, bytes: size } = BLOCKS[type];
  const out = new Float32Array(bytes.length / size * numbers);
  for (let n = 0; n < out.length / numbers; n++) {
    const block = new Block(bytes.subarray(n * size, (n + 1) * size));
    for (let i = 0; i < numbers; i++) out[n * numbers + i] = READ[type](block, i);
  }
  return out;
}

/** C's conversion to a small integer: towards zero. */
function cut(value: number, most: number): number {
  return Math.min(most, Math.trunc(value));
}

function inverse(scale: number): number {
  return scale === 0 ? 0 : f(1 / scale);
}

/** The number of the largest magnitude, the first of equal ones. */
function extreme(x: readonly number[]): number {
  return x.reduce((best, one) => Math.abs(one) > Math.abs(best) ? one : best, 0);
}

/** Scale and levels of numbers around zero; the extreme one gets level 0. */
function around(x: readonly number[], half: number): [scale: number, levels: number[]] {
  const scale = f(extreme(x) / -half);
  return [scale, x.map((one) => cut(f(f(one * inverse(scale)) + half + 0.5), 2 * half - 1))];
}

/** Scale and levels of numbers between their least and their largest. */
function between(x: readonly number[], most: number): [scale: number, levels: number[]] {
  const least = Math.min(...x);
  const scale = f(f(Math.max(...x) - least) / most);
  return [scale, x.map((one) => cut(f(f(f(one - least) * inverse(scale)) + 0.5), most))];
}

function writeLevels(block: Block, at: number, levels: readonly number[], high?: number): void {
  for (let i = 0; i < 16; i++) block.bytes[at + i] = (levels[i]! & 15) | (levels[i + 16]! & 15) << 4;
  if (high !== undefined) block.setWord(high, levels.reduce((bits, level, i) => bits | (level >> 4) << i, 0));
}

const WRITE: Readonly<Record<Quantizable, (block: Block, x: readonly number[]) => void>> = {
  q8_0: (block, x) => {
    const scale = f(Math.abs(extreme(x)) / 127);
    block.setHalf(0, scale);
    x.forEach((one, i) => {
      const level = f(one * inverse(scale));
      block.bytes[2 + i] = Math.sign(level) * Math.floor(Math.abs(level) + 0.5);
    });
  },
  q4_0: (block, x) => {
    const [scale, levels] = around(x, 8);
    block.setHalf(0, scale);
    writeLevels(block, 2, levels);
  },
  q4_1: (block, x) => {
    const [scale, levels] = between(x, 15);
    block.setHalf(0, scale);
    block.setHalf(2, Math.min(...x));
    writeLevels(block, 4, levels);
  },
  q5_0: (block, x) => {
    const [scale, levels] = around(x, 16);
    block.setHalf(0, scale);
    writeLevels(block, 6, levels, 2);
  },
  q5_1: (block, x) => {
    const [scale, levels] = between(x, 31);
    block.setHalf(0, scale);
    block.setHalf(2, Math.min(...x));
    writeLevels(block, 8, levels, 4);
  },
};

/** Blocks of float32 numbers, a multiple of 32. */
export function quantize(type: Quantizable, numbers: Float32Array): Uint8Array<ArrayBuffer> {
  const size = BLOCKS[type].bytes;
  const out = new Uint8Array(numbers.length / 32 * size);
  for (let n = 0; n < numbers.length / 32; n++) {
    WRITE[type](new Block(out.subarray(n * size, (n + 1) * size)), [...numbers.subarray(32 * n, 32 * n + 32)]);
  }
  return out;
}
