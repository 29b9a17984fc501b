/** Writes and reads the structs of the C header. */
import { ENUMS, OFFSETS, STRUCT_BYTES } from "./symbols.ts";

/** Type of the elements of a tensor. The types from q8_0 on store weights in blocks that share scales (`csrc/include/pagesift.h`). */
export type DType =
  | "f32"
  | "f16"
  | "bf16"
  | "i32"
  | "q8_0"
  | "q4_0"
  | "q4_1"
  | "q5_0"
  | "q5_1"
  | "q4_k"
  | "q5_k"
  | "q6_k"
  | "f8";

/** Numbers that share a scale, along the inner dimension of a weight, and the bytes that they take together; 1 number for plain dtypes. */
export const BLOCKS: Readonly<Record<DType, { numbers: number; bytes: number }>> = {
  f32: { numbers: 1, bytes: 4 },
  f16: { numbers: 1, bytes: 2 },
  bf16: { numbers: 1, bytes: 2 },
  i32: { numbers: 1, bytes: 4 },
  q8_0: { numbers: 32, bytes: 34 },
  q4_0: { numbers: 32, bytes: 18 },
  q4_1: { numbers: 32, bytes: 20 },
  q5_0: { numbers: 32, bytes: 22 },
  q5_1: { numbers: 32, bytes: 24 },
  q4_k: { numbers: 256, bytes: 144 },
  q5_k: { numbers: 256, bytes: 176 },
  q6_k: { numbers: 256, bytes: 210 },
  f8: { numbers: 128, bytes: 132 },
};

/** Bytes per number. Those of block formats are means over a block: binary fractions, so bytes of whole blocks come out exact. */
export const DTYPE_BYTES = Object.fromEntries(
  Object.entries(BLOCKS).map(([dtype, { numbers, bytes }]) => [dtype, bytes / numbers]),
) as Readonly<Record<DType, number>>;

/** A `ps_tensor`. `buffer` is the handle's address; the shape has one to three dimensions; `rowStride` counts elements. */
export function tensorStruct(
  buffer: bigint,
  offsetBytes: number,
  rowStride: number,
  shape: readonly number[],
  dtype: DType,
): Uint8Array<ArrayBuffer> {
  const at = OFFSETS.ps_tensor;
  const view = new DataView(new ArrayBuffer(STRUCT_BYTES.ps_tensor));
  view.setBigUint64(at.buffer, buffer, true);
  view.setBigInt64(at.offset_bytes, BigInt(offsetBytes), true);
  view.setBigInt64(at.row_stride, BigInt(rowStride), true);
  for (let i = 0; i < 3; i++) view.setBigInt64(at.shape + 8 * i, BigInt(shape[i] ?? 1), true);
  view.setInt32(at.rank, shape.length, true);
  view.setInt32(at.dtype, ENUMS.ps_dtype[dtype], true);
  return new Uint8Array(view.buffer);
}

export function deviceOptionsStructs(indices: readonly number[], numThreads: number): Uint8Array<ArrayBuffer> {
  const at = OFFSETS.ps_device_options;
  const view = new DataView(new ArrayBuffer(indices.length * STRUCT_BYTES.ps_device_options));
  indices.forEach((index, which) => {
    const start = which * STRUCT_BYTES.ps_device_options;
    view.setInt32(start + at.index, index, true);
    view.setInt32(start + at.num_threads, numThreads, true);
  });
  return new Uint8Array(view.buffer);
}

/** A device, as {@link Device.describe} reports it. Bytes count device memory: the GPU's, or main memory on the CPU. */
export interface DeviceInfo {
  /** Size of the memory. */
  totalBytes: number;
  /** Memory that is free for this process. */
  availableBytes: number;
  /** Memory that this device's buffers, caches and scratch take. */
  allocatedBytes: number;
  /** Which build of the native library the device belongs to. */
  backend: "cpu" | "cuda";
  /** CPU threads of the operations. */
  numThreads: number;
  /** Whether work can be recorded and replayed ({@link Device.record}). */
  records: boolean;
  /** CUDA compute capability times ten, such as 90 for 9.0; 0 on the CPU. */
  capability: number;
  /** The GPU's name, or the CPU's instruction set. */
  name: string;
}

export function readDeviceInfo(bytes: Uint8Array<ArrayBuffer>): DeviceInfo {
  const at = OFFSETS.ps_device_info;
  const view = new DataView(bytes.buffer);
  const name = bytes.subarray(at.name);
  return {
    totalBytes: Number(view.getBigInt64(at.total_bytes, true)),
    availableBytes: Number(view.getBigInt64(at.available_bytes, true)),
    allocatedBytes: Number(view.getBigInt64(at.allocated_bytes, true)),
    backend: view.getInt32(at.backend, true) === ENUMS.ps_backend.cpu ? "cpu" : "cuda",
    numThreads: view.getInt32(at.num_threads, true),
    records: view.getInt32(at.records, true) !== 0,
    capability: view.getInt32(at.capability, true),
    name: new TextDecoder().decode(name.subarray(0, name.indexOf(0))),
  };
}

/** Page statistics that a cache stores besides the mean key and its standard deviation. */
export interface PageStatistics {
  /** Variances, which the scorer `diag` requires. Default false. */
  variance?: boolean;
  /** Minima and maxima, which the scorer `quest` requires. Default false. */
  minMax?: boolean;
  /** Means as 8-bit floats (e4m3) with one scale per row. CUDA only, for pages of 16 bits. Default false. */
  f8Means?: boolean;
  /** Copies in 8 and 2 bits, which the CUDA build scores first. The CPU build stores none. Default false. */
  coarse?: boolean;
}

/** Shape of a KV cache. Each page spans all layers and KV heads. */
export interface CacheShape {
  /** Physical pages in the pool. */
  numPages: number;
  /** Pages in the longest page table of one sequence. */
  maxPagesPerSequence: number;
  /** Layers of the model. */
  numLayers: number;
  /** Hq. */
  numQueryHeads: number;
  /** Hk, a divisor of `numQueryHeads`. */
  numKvHeads: number;
  /** d, a multiple of 16 up to 512. */
  headDim: number;
  /** S, tokens per page: 8, 16, 32 or 64. */
  pageSize: number;
  /** Type of stored statistics, and of keys and values without a `kvType`. */
  dtype: "f32" | "f16" | "bf16";
  /** Keys and values in 8 bits with a scale per token and KV head: integers (`q8`) or e4m3 (`fp8`). */
  kvType?: "q8" | "fp8";
  /** Statistics for other scorers than `unique` and `mean`. */
  statistics: PageStatistics;
  /** Sequences in the largest batch of a decode step. */
  maxSequences: number;
  /**
   * 8 if every sequence takes its physical pages in groups of 8 consecutive, aligned ones, so that the CUDA build can score groups first.
   * Default 0.
   */
  groupPages?: 0 | 8;
  /** What products of queries and keys are multiplied by; default 1 / sqrt(d). */
  attentionScale?: number;
}

function statisticsBits({ variance, minMax, f8Means, coarse }: PageStatistics): number {
  const bits = ENUMS.ps_statistics;
  return (variance ? bits.variance : 0) | (minMax ? bits.min_max : 0) | (f8Means ? bits.f8 : 0) |
    (coarse ? bits.coarse : 0);
}

export function cacheDescStruct(shape: CacheShape): Uint8Array<ArrayBuffer> {
  const at = OFFSETS.ps_cache_desc;
  const view = new DataView(new ArrayBuffer(STRUCT_BYTES.ps_cache_desc));
  view.setBigInt64(at.num_pages, BigInt(shape.numPages), true);
  view.setBigInt64(at.max_pages_per_sequence, BigInt(shape.maxPagesPerSequence), true);
  view.setInt32(at.num_layers, shape.numLayers, true);
  view.setInt32(at.num_query_heads, shape.numQueryHeads, true);
  view.setInt32(at.num_kv_heads, shape.numKvHeads, true);
  view.setInt32(at.head_dim, shape.headDim, true);
  view.setInt32(at.page_size, shape.pageSize, true);
  view.setInt32(at.dtype, ENUMS.ps_dtype[shape.dtype], true);
  view.setInt32(at.statistics, statisticsBits(shape.statistics), true);
  view.setInt32(at.max_sequences, shape.maxSequences, true);
  view.setInt32(at.group_pages, shape.groupPages ?? 0, true);
  view.setInt32(at.kv_type, ENUMS.ps_kv_type[shape.kvType ?? "dtype"], true);
  return new Uint8Array(view.buffer);
}

/** Memory of a KV cache, in bytes. */
export interface CacheBytes {
  /** Keys and values. */
  kv: number;
  /** Page statistics. */
  statistics: number;
  /** Partial results of decode attention. */
  scratch: number;
  /** What `KvCache.exportPages` writes for a page, or for a group of pages; not part of the memory. */
  unit: number;
}

/**
 * Work of the operations on a cache, counted by the native library. A row is one sequence and KV head in one layer of one step; pages
 * are summed over rows.
 */
export interface Counters {
  /** Rows whose selection left out at least one page. */
  rowsSelected: number;
  /** Statistics read for scoring, of pages and of groups of pages. */
  pagesScored: number;
  /** Pages that decode attention read. */
  pagesAttended: number;
  /** Pages that dense attention would have read. */
  pagesInContext: number;
  /** Selections (one per layer and step) that left out a page in at least one row. */
  selections: number;
  /** Of prompts, summed over tiles, KV heads and layers: pages whose statistics were read to choose from. */
  promptPagesScored: number;
  /** Pages that sparse prefill attention read. */
  promptPagesAttended: number;
  /** Pages that dense prefill attention would have read. */
  promptPagesVisible: number;
  /** Coarse copies of statistics read for scoring. */
  copiesScored: number;
}

export function readCacheBytes(bytes: Uint8Array<ArrayBuffer>): CacheBytes {
  const at = OFFSETS.ps_cache_bytes;
  const view = new DataView(bytes.buffer);
  return {
    kv: Number(view.getBigInt64(at.kv, true)),
    statistics: Number(view.getBigInt64(at.statistics, true)),
    scratch: Number(view.getBigInt64(at.scratch, true)),
    unit: Number(view.getBigInt64(at.unit, true)),
  };
}

export function readCounters(bytes: Uint8Array<ArrayBuffer>): Counters {
  const at = OFFSETS.ps_counters;
  const view = new DataView(bytes.buffer);
  return {
    rowsSelected: Number(view.getBigInt64(at.rows_selected, true)),
    pagesScored: Number(view.getBigInt64(at.pages_scored, true)),
    pagesAttended: Number(view.getBigInt64(at.pages_attended, true)),
    pagesInContext: Number(view.getBigInt64(at.pages_in_context, true)),
    selections: Number(view.getBigInt64(at.selections, true)),
    promptPagesScored: Number(view.getBigInt64(at.prompt_pages_scored, true)),
    promptPagesAttended: Number(view.getBigInt64(at.prompt_pages_attended, true)),
    promptPagesVisible: Number(view.getBigInt64(at.prompt_pages_visible, true)),
    copiesScored: Number(view.getBigInt64(at.copies_scored, true)),
  };
}
