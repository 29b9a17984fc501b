/** Operations with inputs of their own, each over enough work to be shared out. */
import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { add, embedding, geluMul, matmul, rmsNorm, sample, scale, siluMul, weightWrite } from "../../ffi/ops.ts";
import type { BlockType } from "../reference/quantized.ts";
import { randomWeight, readWeight } from "./blocks.ts";
import { normals } from "./cases.ts";
import { uploadAs } from "./numbers.ts";
import { buildPaged, type Paged, type PagedShape, randomSequence } from "./paged.ts";
import { attend, attendPrefill, attendPromptPages, choosePromptRows, scoreTensor, select } from "./paged_ops.ts";

const SHAPE: PagedShape = { dtype: "bf16", pageSize: 8, numQueryHeads: 8, numKvHeads: 2, headDim: 64 };
export type Run = (device: Device) => Float32Array<ArrayBuffer>;

function product(tokens: number): Run {
  return (device) => {
    const random = new Random(tokens);
    const [inputs, outputs] = [500, 400];
    const x = device.upload(normals(random, tokens * inputs), [tokens, inputs]);
    const weight = uploadAs(device, "bf16", normals(random, inputs * outputs), [outputs, inputs]);
    const out = device.createTensor("f32", [tokens, outputs]);
    matmul(device, x, weight, undefined, out);
    return out.readFloats();
  };
}

/** The same with weights in blocks, of which the last rows fill no tile. */
function blockProduct(type: BlockType, tokens: number): Run {
  return (device) => {
    const random = new Random(tokens);
    const [inputs, outputs] = [512, 405];
    const x = device.upload(normals(random, tokens * inputs), [tokens, inputs]);
    const [weight] = randomWeight(device, type, random, [outputs, inputs]);
    const out = device.createTensor("f32", [tokens, outputs]);
    matmul(device, x, weight, undefined, out);
    return out.readFloats();
  };
}

/** Rows that become blocks while they are written. */
function quantizing(device: Device): Float32Array<ArrayBuffer> {
  const [rows, columns] = [600, 512];
  const weight = device.createTensor("q8_0", [rows, columns]);
  weightWrite(device, weight, 0, rows, "f32", normals(new Random(3), rows * columns));
  return readWeight(device, weight);
}

/** Norm, activation, sum and table look-up over enough rows to be shared out. */
function rowwise(device: Device): Float32Array<ArrayBuffer> {
  const [tokens, width] = [200, 300];
  const random = new Random(1);
  const [x, y] = [0, 1].map(() => device.upload(normals(random, tokens * width), [tokens, width]));
  const out = device.createTensor("f32", [tokens, width]);
  rmsNorm(device, x!, device.upload(normals(random, width), [width]), 1e-6, x!);
  siluMul(device, x!, y!, out);
  geluMul(device, out, y!, out);
  scale(device, out, 3);
  add(device, out, y!);
  const ids = Int32Array.from({ length: tokens }, (_, i) => (i * 7) % tokens);
  embedding(device, device.upload(ids, [tokens]), out, x!);
  return x!.readFloats();
}

/** Ids drawn from rows with a filter each. */
function samples(device: Device): Float32Array<ArrayBuffer> {
  const [tokens, width] = [24, 6000];
  const random = new Random(5);
  const settings = Float32Array.from({ length: 4 * tokens }, (_, i) => [0.9, 0.95, 0.001, 40 * (i % 3)][i % 4] ?? 0);
  const out = device.createTensor("i32", [tokens]);
  sample(
    device,
    device.upload(normals(random, tokens * width), [tokens, width]),
    device.upload(settings, [tokens, 4]),
    device.upload(Float32Array.from({ length: tokens }, () => random.nextFloat()), [tokens]),
    out,
  );
  return Float32Array.from(out.readInts());
}

function paged(device: Device, kvType?: "q8" | "fp8"): Paged {
  const random = new Random(2);
  const parts = [randomSequence(random, SHAPE, 2000), randomSequence(random, SHAPE, 300)];
  return buildPaged(device, { ...SHAPE, ...kvType && { kvType } }, parts, random);
}

const QUERIES = normals(new Random(3), 2 * 8 * 64);

export const RUNS: Record<string, Run> = {
  "matmul of one token": product(1),
  "matmul of eight tokens": product(8),
  "matmul of fifty tokens": product(50),
  "matmul of one token with q4_1 weights": blockProduct("q4_1", 1),
  "matmul of fifty tokens with q6_k weights": blockProduct("q6_k", 50),
  "matmul of fifty tokens with f8 weights": blockProduct("f8", 50),
  "weightWrite to q8_0": quantizing,
  "rmsNorm, siluMul, geluMul, scale, add and embedding": rowwise,
  "sample": samples,
  "append and scorePages": (device) => scoreTensor(paged(device), QUERIES).readFloats(),
  "attend over every page": (device) => attend(paged(device), QUERIES),
  "attend over selected pages": (device) => {
    const batch = paged(device);
    return attend(batch, QUERIES, { selection: select(batch, scoreTensor(batch, QUERIES), { k: 70 }) });
  },
  "attend over every page of q8": (device) => attend(paged(device, "q8"), QUERIES),
  "attend over every page of fp8": (device) => attend(paged(device, "fp8"), QUERIES),
  "choosePromptPages and attention over them": (device) => {
    const batch = paged(device);
    const queries = normals(new Random(4), 200 * 8 * 64);
    const rows = choosePromptRows(batch, queries, 1500, { k: 70, tileTokens: 128 });
    return attendPromptPages(batch, queries, 1500, 128, rows);
  },
  "attendPrefill": (device) => attendPrefill(paged(device), normals(new Random(4), 90 * 8 * 64), 1500),
};
