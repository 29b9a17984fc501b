import { BLOCKS } from "../ffi/structs.ts";
import { PagesiftError } from "./errors.ts";
import type { ModelConfig } from "./folder/config.ts";
import { weightDType } from "./folder/weight_formats.ts";
import type { PlannedTensor, Split, WeightPlan } from "./folder/weight_plan.ts";

/** Config and weights of one member of a group of devices. */
export interface Shard {
  config: ModelConfig;
  plan: WeightPlan;
}

/**
 * The share of each of `members` devices: query and KV heads with their rows of the projections, the same part of the feed-forward
 * block, and rows of the output projection. Norms, routers and the embedding are on every device.
 *
 * @throws {PagesiftError} of kind "usage" if the model cannot be split evenly
 */
export function shardModel(config: ModelConfig, plan: WeightPlan, members: number): Shard {
  if (members === 1) return { config, plan };
  checkDivisible(config, members);
  const tensors = new Map<string, PlannedTensor>();
  for (const planned of plan.tensors.values()) {
    tensors.set(planned.name, shardTensor(planned, config, members));
  }
  const logits = plan.tensors.get("logits.weight") ?? plan.tensors.get("embedding.weight");
  if (logits && config.vocabSize % members === 0) {
    tensors.set("logits.weight", withRows({ ...logits, name: "logits.weight" }, [], members));
  }
  const { moe } = config;
  return {
    config: {
      ...config,
      numQueryHeads: config.numQueryHeads / members,
      numKvHeads: config.numKvHeads / members,
      intermediateSize: config.intermediateSize / members,
      ...moe && { moe: { ...moe, intermediateSize: moe.intermediateSize / members } },
    },
    plan: { ...plan, tensors },
  };
}

function checkDivisible({ numKvHeads, intermediateSize, moe }: ModelConfig, members: number): void {
  const sizes: [number, string][] = [
    [numKvHeads, "KV heads"],
    [intermediateSize, "columns in its feed-forward block"],
    ...(moe ? [[moe.intermediateSize, "columns in each expert"] as [number, string]] : []),
  ];
  const uneven = sizes.find(([size]) => size % members !== 0);
  if (!uneven) return;
  const counts = Array.from({ length: members }, (_, index) => members - index);
  const most = counts.find((count) => sizes.every(([size]) => size % count === 0)) ?? 1;
  throw new PagesiftError(
    "usage",
    `Cannot split the model over ${members} devices: it has ${uneven[0]} ${
      uneven[1]
    }, which ${members} does not divide; ` +
      `use ${most === 1 ? "1 device" : `${most} devices`} (--devices)`,
  );
}

function shardTensor(planned: PlannedTensor, config: ModelConfig, members: number): PlannedTensor {
  const { numQueryHeads, numKvHeads, headDim, intermediateSize } = config;
  const base = planned.name.replace(/\/\d+$/, "");
  if (/\.qkv\.(weight|bias)$/.test(base)) {
    return withRows(planned, [numQueryHeads, numKvHeads, numKvHeads].map((heads) => heads * headDim), members);
  }
  if (/\.gate_up\.(weight|bias)$/.test(base)) {
    const width = base.includes(".experts.") ? config.moe?.intermediateSize ?? 0 : intermediateSize;
    return withRows(planned, [width, width], members);
  }
  if (/\.(output|down)\.weight$/.test(base)) return withColumns(planned, members);
  // The sum over the members must contain the bias once.
  if (/\.(output|down)\.bias$/.test(base)) return { ...planned, split: { kind: "first" } };
  return planned;
}

/** @param sections rows of the projections in the whole tensor, in its order; empty: it is one projection */
function withRows(planned: PlannedTensor, sections: readonly number[], members: number): PlannedTensor {
  const [rows = 0, ...inner] = planned.shape;
  const total = sections.reduce((sum, section) => sum + section, 0);
  // A tensor of one part is all projections stacked. Otherwise each part is one of them, and a run of one format may lack some.
  const stacked = total === rows ? sections : planned.parts.map(({ shape }) => shape[0] ?? 0);
  const split: Split = { kind: "rows", sections: stacked.length > 0 && sections.length > 0 ? stacked : [rows] };
  return { ...planned, shape: [rows / members, ...inner], split };
}

function withColumns(planned: PlannedTensor, members: number): PlannedTensor {
  const [rows = 0, columns = 0] = planned.shape;
  const width = columns / members;
  const dtypes = [planned.dtype, ...planned.parts.map(({ dtype }) => weightDType(dtype) ?? planned.dtype)];
  const uneven = dtypes.find((dtype) => width % BLOCKS[dtype].numbers !== 0);
  if (uneven !== undefined) {
    throw new PagesiftError(
      "usage",
      `Cannot split the model over ${members} devices: tensor "${planned.name}" has ${columns} columns in blocks of ` +
        `${
          BLOCKS[uneven].numbers
        } (${uneven}), whose shares would not be whole blocks; use fewer devices, or --weights bf16`,
    );
  }
  return { ...planned, shape: [rows, width], split: { kind: "columns" } };
}

/** Rows of a member's tensor that come from a piece of the whole one. */
export interface RowRun {
  /** In the piece. */
  from: number;
  /** In the member's tensor. */
  to: number;
  rows: number;
}

/** Which of the rows `[first, first + rows)` of a whole tensor a member gets. */
export function rowsOfMember(
  sections: readonly number[],
  members: number,
  member: number,
  first: number,
  rows: number,
): RowRun[] {
  const runs: RowRun[] = [];
  let [start, target] = [0, 0];
  for (const section of sections) {
    const share = section / members;
    const begin = start + member * share;
    const from = Math.max(begin, first);
    const end = Math.min(begin + share, first + rows);
    if (from < end) runs.push({ from: from - first, to: target + from - begin, rows: end - from });
    start += section;
    target += share;
  }
  return runs;
}

/** A member's columns of whole rows, packed; a share is whole blocks of the rows' format. */
export function columnsOfMember(
  bytes: Uint8Array<ArrayBuffer>,
  rows: number,
  members: number,
  member: number,
): Uint8Array<ArrayBuffer> {
  const rowBytes = bytes.length / rows;
  const width = rowBytes / members;
  const out = new Uint8Array(rows * width);
  for (let row = 0; row < rows; row++) {
    const from = row * rowBytes + member * width;
    out.set(bytes.subarray(from, from + width), row * width);
  }
  return out;
}
