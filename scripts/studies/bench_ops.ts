/**
 * Times single operations on the CPU: matrix-vector products, and one layer's decode attention, dense and sparse. Arms alternate in
 * one run; medians. Bandwidth is relative to a plain read of a large buffer in the same run.
 *
 *     deno run -A scripts/studies/bench_ops.ts [--threads N] [--repeats N] [--products q4_1,bf16 [--tokens N]]
 *
 * `--products` times only products, of the shapes of SmolLM2-135M, with weights of these dtypes.
 */
import { parseArgs } from "@std/cli/parse-args";
import { Device } from "../../ffi/device.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import { Tensor } from "../../ffi/tensor.ts";
import { matmul, weightWrite } from "../../ffi/ops.ts";
import { BLOCKS, type DType, DTYPE_BYTES } from "../../ffi/structs.ts";
import { print } from "../output.ts";

/** One operation to time; `bytes` is what it must read. */
interface Arm {
  name: string;
  bytes: number;
  run: () => void;
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

/** Median seconds of every arm; the arms alternate. */
function timeArms(arms: Arm[], repeats: number): number[] {
  const seconds: number[][] = arms.map(() => []);
  for (let round = -2; round < repeats; round++) {
    arms.forEach((arm, index) => {
      const started = performance.now();
      arm.run();
      if (round >= 0) seconds[index]?.push((performance.now() - started) / 1000);
    });
  }
  return seconds.map(median);
}

function report(arms: Arm[], seconds: number[], peak: number): void {
  arms.forEach((arm, index) => {
    const time = seconds[index] ?? NaN;
    const rate = arm.bytes / time;
    print(
      `| ${arm.name} | ${(time * 1e6).toFixed(1)} | ${(rate / 1e9).toFixed(2)} | ${(100 * rate / peak).toFixed(0)} % |`,
    );
  });
}

function randomFloats(count: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count }, () => Math.random() - 0.5);
}

const ROTATED_BYTES = 100e6;
/** Outputs and inputs of the products of a layer, and of the logits. */
const SMOLLM2_SHAPES = [[960, 576], [576, 576], [3072, 576], [576, 1536], [49152, 576]] as const;

interface Product {
  rows: number;
  columns: number;
  dtype: DType;
  tokens: number;
}

/** Several weight matrices in turn, together far larger than the caches. */
function productArm(device: Device, { rows, columns, dtype, tokens }: Product): Arm {
  const bytes = rows * columns * DTYPE_BYTES[dtype];
  const copies = Math.ceil(ROTATED_BYTES / bytes);
  const buffer = device.createBuffer(copies * bytes); // one buffer, as the weights of a model are
  const pattern = new Uint16Array(bytes / 2).map((_, index) => 0x3c00 + index % 512);
  const weights = Array.from({ length: copies }, (_, copy) => new Tensor(buffer, dtype, [rows, columns], copy * bytes));
  for (const weight of weights) weightWrite(device, weight, 0, rows, dtype, pattern);
  const x = device.upload(randomFloats(tokens * columns), [tokens, columns]);
  const out = device.createTensor("f32", [tokens, rows]);
  let turn = 0;
  return {
    name: `${tokens === 1 ? "matvec" : `product of ${tokens} tokens`} ${dtype} ${rows} x ${columns}`,
    bytes,
    run: () => matmul(device, x, weights[turn++ % copies] as Tensor, undefined, out),
  };
}

/** One layer's attention at a context, alternating over enough layers to exceed the caches. */
function attentionArms(device: Device, contextTokens: number, shape: { hq: number; hk: number; d: number }): Arm[] {
  const { hq, hk, d } = shape;
  const [pageSize, budgetPages] = [8, 64];
  const numPages = contextTokens / pageSize;
  const layerBytes = contextTokens * hk * d * 4;
  const numLayers = Math.max(2, Math.ceil(200e6 / layerBytes));
  const cache = KvCache.create(device, {
    ...{ numPages, maxPagesPerSequence: numPages, numLayers, numQueryHeads: hq, numKvHeads: hk, headDim: d, pageSize },
    ...{ dtype: "bf16", statistics: {}, maxSequences: 1 },
  });
  const keys = device.upload(randomFloats(contextTokens * hk * d), [contextTokens, hk, d]);
  const slots = device.upload(Int32Array.from({ length: contextTokens }, (_, index) => index), [contextTokens]);
  for (let layer = 0; layer < numLayers; layer++) cache.append(layer, keys, keys, slots);
  const q = device.upload(randomFloats(hq * d), [1, hq, d]);
  const out = device.createTensor("f32", [1, hq, d]);
  const sequences = {
    pageTable: device.upload(Int32Array.from({ length: numPages }, (_, index) => index), [1, numPages]),
    lengths: device.upload(Int32Array.of(contextTokens), [1]),
  };
  const scores = device.createTensor("f32", [1, hk, numPages]);
  const selection = {
    selected: device.createTensor("i32", [1, hk, budgetPages]),
    counts: device.createTensor("i32", [1, hk]),
  };
  const turns = [0, 0, 0, 0];
  const next = (arm: number): number => (turns[arm] = (turns[arm] ?? 0) + 1) % numLayers;
  const statistics = numPages * hk * (d * 2 + 4);
  const chosen = budgetPages * pageSize * hk * d * 4;
  const label = `${contextTokens} tokens, ${hq}/${hk} heads of ${d}`;
  return [
    { name: `dense attention, ${label}`, bytes: layerBytes, run: () => cache.attend(next(0), q, sequences, out) },
    { name: `page score, ${label}`, bytes: statistics, run: () => cache.scorePages(next(1), q, sequences, scores) },
    {
      name: `page select`,
      bytes: numPages * hk * 4,
      run: () => cache.selectPages(scores, sequences.lengths, selection),
    },
    {
      name: `sparse attention, 512 tokens`,
      bytes: chosen,
      run: () => cache.attend(next(2), q, sequences, out, { selection }),
    },
  ];
}

function generalArms(device: Device): Arm[] {
  return [
    ...[[4096, 4096], [1024, 4096], [1536, 256], [4096, 256]].map(([rows = 0, columns = 0]) =>
      productArm(device, { rows, columns, dtype: "bf16", tokens: 1 })
    ),
    productArm(device, { rows: 2048, columns: 2048, dtype: "f32", tokens: 1 }),
    ...attentionArms(device, 16384, { hq: 8, hk: 2, d: 64 }),
    ...attentionArms(device, 32768, { hq: 8, hk: 2, d: 64 }),
  ];
}

/** The products of SmolLM2-135M, one after the other for every dtype; K formats cannot have its rows of 576 numbers and take 768. */
function modelArms(device: Device, dtypes: readonly DType[], tokens: number): Arm[] {
  return SMOLLM2_SHAPES.flatMap(([rows, inputs]) =>
    dtypes.map((dtype) => {
      const { numbers } = BLOCKS[dtype];
      return productArm(device, { rows, columns: Math.ceil(inputs / numbers) * numbers, dtype, tokens });
    })
  );
}

function main(): void {
  const flags = parseArgs(Deno.args, { string: ["threads", "repeats", "products", "tokens"] });
  const threads = Number(flags["threads"] ?? 0);
  const repeats = Number(flags["repeats"] ?? 31);
  using device = Device.open("cpu", { threads });
  const large = device.createBuffer(1 << 28);
  const filling = randomFloats(1 << 20); // untouched memory would be one shared page of zeros
  for (let offset = 0; offset < large.bytes; offset += filling.byteLength) large.write(filling, offset);
  const scan: Arm = { name: "read 256 MiB", bytes: large.bytes, run: () => large.scan() };
  const products = flags["products"] as string | undefined;
  const dtypes = products?.split(",") as DType[] | undefined;
  const arms = [
    scan,
    ...dtypes ? modelArms(device, dtypes, Number(flags["tokens"] ?? 1)) : generalArms(device),
  ];
  const seconds = timeArms(arms, repeats);
  const { name, numThreads } = device.describe();
  print(
    `CPU, ${name}, ${numThreads} threads, median of ${repeats}\n\n| operation | us | GB/s | of read |\n|---|---|---|---|`,
  );
  report(arms, seconds, scan.bytes / (seconds[0] ?? NaN));
}

if (import.meta.main) main();
