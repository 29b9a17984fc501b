/** Weights in blocks on a device. */
import type { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { embedding, weightWrite } from "../../ffi/ops.ts";
import { BLOCKS } from "../../ffi/structs.ts";
import type { Tensor } from "../../ffi/tensor.ts";
import { type BlockType, dequantize } from "../reference/quantized.ts";

/** Where the f16 numbers of a block lie, in bytes. */
const HALVES: Readonly<Record<BlockType, readonly number[]>> = {
  ...{ q8_0: [0], q4_0: [0], q4_1: [0, 2], q5_0: [0], q5_1: [0, 2], q4_k: [0, 2], q5_k: [0, 2], q6_k: [208], f8: [] },
};

/** Random bits for every number, with scales such that the numbers are of about size 1. */
export function randomBlocks(type: BlockType, random: Random, numbers: number): Uint8Array<ArrayBuffer> {
  const block = BLOCKS[type];
  const out = Uint8Array.from({ length: numbers / block.numbers * block.bytes }, () => 256 * random.nextFloat());
  const view = new DataView(out.buffer);
  const size = { q8_0: 1 / 64, q6_k: 1 / 2048 }[type as string] ?? (type.endsWith("_k") ? 1 / 512 : 1 / 8);
  for (let at = 0; at < out.length; at += block.bytes) {
    for (const half of HALVES[type]) view.setFloat16(at + half, (0.5 + random.nextFloat()) * size, true);
    if (type !== "f8") continue;
    for (let i = 0; i < 128; i++) if ((out[at + i]! & 127) > 0x48) out[at + i]! &= 0xbf; // below 4, and no NaN
    view.setFloat32(at + 128, 0.5 + random.nextFloat(), true);
  }
  return out;
}

/** A weight of blocks in a buffer of its own. */
export function uploadBlocks(
  device: Device,
  type: BlockType,
  blocks: Uint8Array<ArrayBuffer>,
  shape: readonly [rows: number, columns: number],
): Tensor {
  const weight = device.createTensor(type, shape);
  weightWrite(device, weight, 0, shape[0], type, blocks);
  return weight;
}

/** The numbers of a weight of any dtype, by `embedding` of all its rows. */
export function readWeight(device: Device, weight: Tensor): Float32Array<ArrayBuffer> {
  const [rows = 0, columns = 0] = weight.shape;
  const out = device.createTensor("f32", [rows, columns]);
  embedding(device, device.upload(Int32Array.from({ length: rows }, (_, i) => i), [rows]), weight, out);
  return out.readFloats();
}

/** Random weights: the tensor, and its numbers as the reference reads them. */
export function randomWeight(
  device: Device,
  type: BlockType,
  random: Random,
  shape: readonly [rows: number, columns: number],
): [weight: Tensor, numbers: Float32Array<ArrayBuffer>] {
  const blocks = randomBlocks(type, random, shape[0] * shape[1]);
  return [uploadBlocks(device, type, blocks, shape), dequantize(type, blocks)];
}
