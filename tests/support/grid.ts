/** Every pair of head size, group size, page size, page type and batch that the kernel tests run, spread over few cases. */
import { Random } from "../../engine/sample/random.ts";
import { integerBelow } from "./cases.ts";
import { FLOAT_TYPES } from "./numbers.ts";
import type { PagedShape } from "./paged.ts";

const HEAD_SIZES = [16, 48, 64, 80, 128, 256];
const GROUP_SIZES = [1, 3, 4, 5, 8];
const PAGE_SIZES = [8, 16, 32, 64];

export interface GridCase {
  /** "bf16 pages of 8, heads of 48 x 3, batch 1" */
  name: string;
  shape: PagedShape;
  batch: number;
  seed: number;
}

function* enumerate(): Generator<GridCase> {
  for (const [a, headDim] of HEAD_SIZES.entries()) {
    for (const [b, group] of GROUP_SIZES.entries()) {
      for (const [c, pageSize] of PAGE_SIZES.entries()) {
        if ((a + b + c) % 2 === 1) continue;
        const dtype = FLOAT_TYPES[(a + b + 2 * c) % FLOAT_TYPES.length]!;
        const batch = (b + Math.floor(c / 2)) % 2 === 0 ? 1 : 3;
        const numKvHeads = 1 + (a + c) % 2;
        const shape = { dtype, pageSize, headDim, numKvHeads, numQueryHeads: numKvHeads * group };
        yield { name: nameOf(shape, group, batch), shape, batch, seed: a * 100 + b * 10 + c };
      }
    }
  }
  for (const [a, headDim] of [...HEAD_SIZES, 96].entries()) {
    for (const [b, kvType] of (["q8", "fp8"] as const).entries()) {
      const [dtype, pageSize] = [FLOAT_TYPES[(a + b) % 3]!, PAGE_SIZES[(a + 2 * b) % 4]!];
      const [group, batch, numKvHeads] = [GROUP_SIZES[(2 * a + b) % 5]!, 1 + 2 * (a % 2), 1 + b];
      const shape = { dtype, kvType, pageSize, headDim, numKvHeads, numQueryHeads: numKvHeads * group };
      yield { name: nameOf(shape, group, batch), shape, batch, seed: 1000 + a * 10 + b };
    }
  }
}

function nameOf({ dtype, kvType, pageSize, headDim }: PagedShape, group: number, batch: number): string {
  const type = kvType ? `${kvType} (${dtype})` : dtype;
  return `${type} pages of ${pageSize}, heads of ${headDim}, ${group} a KV head, batch ${batch}`;
}

export const GRID: readonly GridCase[] = [...enumerate()];

/** Lengths of a batch: four pages, the last of them mostly not full; the second sequence holds one token. */
export function gridLengths({ shape, batch, seed }: GridCase): number[] {
  const random = new Random(seed);
  return Array.from(
    { length: batch },
    (_, b) => b === 1 ? 1 : 4 * shape.pageSize - integerBelow(random, shape.pageSize),
  );
}
