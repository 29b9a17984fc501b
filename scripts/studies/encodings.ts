/** Ways to store a page's mean key in fewer bits. */

/** `[d]` */
export type Row = Float32Array<ArrayBuffer>;

/** How a mean is stored: takes `[d]`, returns the decoded values. `centre` is the mean of the head's page means. */
export type Encoding = (mean: Row, centre: Row) => Row;

export function toBf16(value: number): number {
  const bits = new Uint32Array(new Float32Array([value]).buffer);
  const word = bits[0] ?? 0;
  bits[0] = ((word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000) >>> 0;
  return new Float32Array(bits.buffer)[0] ?? 0;
}

function roundEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

/** The nearest e4m3 number: 3 mantissa bits, smallest exponent -6, largest number 448. */
function toE4m3(value: number): number {
  const exponent = Math.max(-6, Math.floor(Math.log2(Math.abs(value))));
  const step = 2 ** (exponent - 3);
  return Math.max(-448, Math.min(448, roundEven(value / step) * step));
}

/** One scale per row: the largest number becomes `top`. */
function scaled(round: (value: number) => number, top: number): Encoding {
  return (mean) => {
    const largest = mean.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const scale = Math.fround(largest / top) || 1;
    return mean.map((value) => round(value / scale) * scale);
  };
}

/** Subtracts the centre first; one product of query and centre per head adds it back. */
function centred(inner: Encoding): Encoding {
  return (mean, centre) => {
    const decoded = inner(mean.map((value, index) => value - (centre[index] ?? 0)), centre);
    return decoded.map((value, index) => value + (centre[index] ?? 0));
  };
}

/** Walsh-Hadamard transform, its own inverse: spreads outliers over the row. d is a power of two. */
function hadamard(row: Row): Row {
  const out = row.slice();
  for (let half = 1; half < out.length; half *= 2) {
    for (let index = 0; index < out.length; index++) {
      if (index & half) continue;
      const [a = 0, b = 0] = [out[index], out[index + half]];
      out[index] = (a + b) * Math.SQRT1_2;
      out[index + half] = (a - b) * Math.SQRT1_2;
    }
  }
  return out;
}

const FP8 = scaled(toE4m3, 448);
const INT8 = scaled(roundEven, 127);
export const ENCODINGS: Readonly<Record<string, Encoding>> = {
  f32: (mean) => mean,
  bf16: (mean) => mean.map(toBf16),
  fp8: FP8,
  int8: INT8,
  "fp8 centred": centred(FP8),
  "int8 centred": centred(INT8),
  "int8 rotated": (mean, centre) => hadamard(INT8(hadamard(mean), centre)),
  "int8 centred and rotated": centred((mean, centre) => hadamard(INT8(hadamard(mean), centre))),
  int12: scaled(roundEven, 2047),
};
