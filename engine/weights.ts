import type { Device } from "../ffi/device.ts";
import { NativeError, Status } from "../ffi/errors.ts";
import { weightWrite } from "../ffi/ops.ts";
import type { DType } from "../ffi/structs.ts";
import { Tensor } from "../ffi/tensor.ts";
import { PagesiftError } from "./errors.ts";
import type { CheckpointTensor } from "./folder/checkpoint.ts";
import type { ModelConfig } from "./folder/config.ts";
import { shorten } from "./folder/json_file.ts";
import { readRowsInPieces } from "./folder/tensor_rows.ts";
import { mergeRows } from "./merge_adapter.ts";
import type { PlannedTensor, Split, WeightPlan } from "./folder/weight_plan.ts";
import { tensorBytes, type TensorNeed } from "./owned_tensors.ts";
import { weightDType } from "./folder/weight_formats.ts";
import { columnsOfMember, rowsOfMember } from "./shards.ts";

/** Tensors start at multiples of this, so that vector loads stay aligned. */
const ALIGNMENT_BYTES = 256;
/** Rows are read through a buffer of this size, half of it at a time. */
const BUFFER_BYTES = 8 << 20;
/** After this many bytes the event loop gets a turn, so that Ctrl-C works while a model loads. */
const BREATH_BYTES = 64 << 20;

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
}

/**
 * Bytes that a decode step reads of these weights: not the table that is used for embedding alone, and of the experts only the share that a
 * token takes.
 */
export function stepBytes(
  tensors: ReadonlyMap<string, TensorNeed>,
  { moe }: Pick<ModelConfig, "moe">,
): number {
  const expertShare = moe ? moe.numExpertsPerToken / moe.numExperts : 1;
  let bytes = 0;
  for (const [name, tensor] of tensors) {
    if (name.startsWith("embedding.weight") && tensors.has("logits.weight")) continue;
    bytes += (name.includes(".experts.") ? expertShare : 1) * tensorBytes(tensor);
  }
  return bytes;
}

/** Bytes of device memory for the planned tensors. */
export function weightBytes(plan: WeightPlan): number {
  return [...plan.tensors.values()].reduce((sum, tensor) => sum + aligned(tensorBytes(tensor)), 0);
}

/** Rows of a whole tensor, in the format of a file. */
interface Piece {
  first: number;
  rows: number;
  bytes: Uint8Array<ArrayBuffer>;
  dtype: DType;
}

/** Writes to each member of the device what it has of a piece. */
function writeShares(
  device: Device,
  target: Tensor,
  { first, rows, bytes, dtype }: Piece,
  split: Split | undefined,
): void {
  const { members } = device;
  if (split === undefined) return weightWrite(device, target, first, rows, dtype, bytes);
  if (split.kind === "first") return device.only(0, () => weightWrite(device, target, first, rows, dtype, bytes));
  const rowBytes = bytes.length / rows;
  for (let member = 0; member < members; member++) {
    device.only(member, () => {
      if (split.kind === "columns") {
        return weightWrite(device, target, first, rows, dtype, columnsOfMember(bytes, rows, members, member));
      }
      for (const run of rowsOfMember(split.sections, members, member, first, rows)) {
        const share = bytes.subarray(run.from * rowBytes, (run.from + run.rows) * rowBytes);
        weightWrite(device, target, run.to, run.rows, dtype, share);
      }
    });
  }
}

/** Writes the rows of a part into its tensor, from row `start` on. */
function writePart(
  device: Device,
  target: Tensor,
  part: CheckpointTensor,
  start: number,
  buffer: Uint8Array<ArrayBuffer>,
  split: Split | undefined,
): void {
  const dtype = weightDType(part.dtype) ?? target.dtype;
  try {
    if (part.change) {
      mergeRows(device, part.change, buffer, ({ buffer: merged, byteOffset, byteLength }, first, rows) => {
        const bytes = new Uint8Array(merged, byteOffset, byteLength);
        writeShares(device, target, { first: start + first, rows, bytes, dtype: "f32" }, split);
      });
    } else {
      readRowsInPieces(part, (bytes, first, rows) => {
        writeShares(device, target, { first: start + first, rows, bytes, dtype }, split);
      }, buffer);
    }
  } catch (error) {
    // The file's own numbers are at fault: NaN cannot be quantised.
    if (!(error instanceof NativeError) || error.status !== Status.InvalidArgument) throw error;
    const tensor = `tensor "${shorten(part.name)}" of "${part.file}"`;
    throw new PagesiftError("model", `Cannot store ${tensor} as ${target.dtype}: ${error.message}`, { cause: error });
  }
}

/** The weights of a model, in one buffer of the device. */
export class Weights {
  readonly #tensors: ReadonlyMap<string, Tensor>;

  private constructor(tensors: ReadonlyMap<string, Tensor>, readonly bytes: number) {
    this.#tensors = tensors;
  }

  /**
   * Copies the planned tensors to the device in pieces of a few MiB: no second copy of the weights ever exists.
   *
   * @throws {PagesiftError} of kind "model" when a file got shorter or contains numbers that the plan's format cannot store; the signal's
   * reason when aborted
   */
  static async load(device: Device, plan: WeightPlan, signal?: AbortSignal): Promise<Weights> {
    const weights = Weights.#place(device, plan);
    const buffer = new Uint8Array(BUFFER_BYTES);
    let sinceBreath = 0;
    for (const planned of plan.tensors.values()) {
      signal?.throwIfAborted();
      const target = weights.get(planned.name);
      let row = 0;
      for (const part of planned.parts) {
        writePart(device, target, part, row, buffer, planned.split);
        row += part.shape[0] ?? 1;
        sinceBreath += part.bytes;
      }
      if (sinceBreath < BREATH_BYTES) continue;
      sinceBreath = 0;
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    return weights;
  }

  /** Weights without a file, to measure a model shape: `fill` receives every planned tensor with its zeroed device tensor. */
  static fill(device: Device, plan: WeightPlan, fill: (planned: PlannedTensor, target: Tensor) => void): Weights {
    const weights = Weights.#place(device, plan);
    for (const planned of plan.tensors.values()) fill(planned, weights.get(planned.name));
    return weights;
  }

  /** Zeroed device tensors for the planned tensors. */
  static #place(device: Device, plan: WeightPlan): Weights {
    const bytes = weightBytes(plan);
    const buffer = device.createBuffer(bytes);
    const tensors = new Map<string, Tensor>();
    let offset = 0;
    for (const planned of plan.tensors.values()) {
      tensors.set(planned.name, new Tensor(buffer, planned.dtype, planned.shape, offset));
      offset += aligned(tensorBytes(planned));
    }
    return new Weights(tensors, bytes);
  }

  /** A tensor that the plan is known to contain. */
  get(name: string): Tensor {
    const tensor = this.#tensors.get(name);
    if (!tensor) throw new Error(`No weight tensor "${name}" was planned`);
    return tensor;
  }

  /** The tensors that make up a planned one: itself, or one for each format of its rows. */
  stack(name: string): readonly Tensor[] {
    const whole = this.#tensors.get(name);
    if (whole) return [whole];
    const runs: Tensor[] = [];
    for (let run = this.#tensors.get(`${name}/0`); run; run = this.#tensors.get(`${name}/${runs.length}`)) {
      runs.push(run);
    }
    return runs.length > 0 ? runs : [this.get(name)];
  }

  /** Bytes that a decode step reads of them. */
  stepBytes(config: Pick<ModelConfig, "moe">): number {
    return stepBytes(this.#tensors, config);
  }

  /** A tensor that some models lack (a bias, a norm). */
  find(name: string): Tensor | undefined {
    return this.#tensors.get(name);
  }
}
