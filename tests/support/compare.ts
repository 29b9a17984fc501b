/** Comparisons whose failures say where and by how much. */
import { AssertionError } from "@std/assert";

export interface Tolerance {
  /** Of the larger of the wanted number and the root mean square of all wanted numbers. Default 1e-5. */
  relative?: number;
  /** Added to that. Default 0. */
  absolute?: number;
}

/** `[1, 0, 5]`: where element `index` stands in a tensor of this shape. */
function positionOf(index: number, shape: readonly number[]): string {
  const position: number[] = [];
  for (const size of shape.toReversed()) {
    position.unshift(index % size);
    index = Math.floor(index / size);
  }
  return `[${position.join(", ")}]`;
}

function rootMeanSquare(numbers: ArrayLike<number>): number {
  const finite = new Float64Array(numbers).filter(Number.isFinite);
  return Math.sqrt(finite.reduce((sum, x) => sum + x * x, 0) / Math.max(finite.length, 1));
}

function assertSameSpecials(actual: ArrayLike<number>, wanted: ArrayLike<number>, shape: readonly number[]): void {
  for (let i = 0; i < wanted.length; i++) {
    const special = !Number.isFinite(wanted[i]) || !Number.isFinite(actual[i]);
    if (special && !Object.is(actual[i], wanted[i])) {
      throw new AssertionError(`At ${positionOf(i, shape)} stands ${actual[i]}, wanted ${wanted[i]}`);
    }
  }
}

/** Same size, then NaN and infinities at the same places, then every number within the tolerance. */
export function assertNumbersClose(
  actual: ArrayLike<number>,
  wanted: ArrayLike<number>,
  shape: readonly number[],
  tolerance: Tolerance = {},
): void {
  const { relative = 1e-5, absolute = 0 } = tolerance;
  const size = shape.reduce((product, n) => product * n, 1);
  if (actual.length !== size || wanted.length !== size) {
    throw new AssertionError(`${actual.length} numbers against ${wanted.length}, wanted ${size} each`);
  }
  assertSameSpecials(actual, wanted, shape);
  const floor = rootMeanSquare(wanted);
  let worst = 0;
  let worstExcess = -Infinity;
  for (let i = 0; i < size; i++) {
    if (!Number.isFinite(wanted[i])) continue;
    const excess = Math.abs(actual[i]! - wanted[i]!) - absolute - relative * Math.max(Math.abs(wanted[i]!), floor);
    if (excess > worstExcess) [worst, worstExcess] = [i, excess];
  }
  if (worstExcess <= 0) return;
  const error = Math.abs(actual[worst]! - wanted[worst]!);
  throw new AssertionError(
    `Worst at ${positionOf(worst, shape)}: ${actual[worst]}, wanted ${wanted[worst]} ` +
      `(absolute error ${error.toExponential(2)}, relative ${(error / Math.abs(wanted[worst]!)).toExponential(2)}; ` +
      `allowed ${absolute} + ${relative} relative, root mean square ${floor.toExponential(2)})`,
  );
}

/** The same 32 bits everywhere. */
export function assertSameBits(
  actual: Float32Array<ArrayBuffer>,
  wanted: Float32Array<ArrayBuffer>,
  shape: readonly number[] = [actual.length],
): void {
  if (actual.length !== wanted.length) throw new AssertionError(`${actual.length} numbers against ${wanted.length}`);
  const a = new Uint32Array(actual.buffer, actual.byteOffset, actual.length);
  const b = new Uint32Array(wanted.buffer, wanted.byteOffset, wanted.length);
  const first = a.findIndex((bits, i) => bits !== b[i]);
  if (first >= 0) {
    throw new AssertionError(`Other bits at ${positionOf(first, shape)}: ${actual[first]}, wanted ${wanted[first]}`);
  }
}

/** Row by row the same numbers: first as sets, then in the same order, without repeats. */
export function assertIndexSetsEqual(
  actual: readonly (readonly number[])[],
  wanted: readonly (readonly number[])[],
): void {
  if (actual.length !== wanted.length) throw new AssertionError(`${actual.length} rows, wanted ${wanted.length}`);
  wanted.forEach((row, index) => {
    const [found, asked] = [new Set(actual[index]), new Set(row)];
    const missing = [...asked.difference(found)];
    const extra = [...found.difference(asked)];
    if (missing.length > 0 || extra.length > 0) {
      throw new AssertionError(`Row ${index} lacks [${missing.slice(0, 8)}] and has [${extra.slice(0, 8)}] instead`);
    }
    const same = actual[index]!.length === row.length && row.every((page, i) => actual[index]![i] === page);
    if (!same) throw new AssertionError(`Row ${index} repeats a page or is not ascending: [${actual[index]}]`);
  });
}
