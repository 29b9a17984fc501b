/** Bytes and field offsets of the C header's structs; the library reports its own sizes when it is opened. */
export const STRUCT_BYTES = {
  ps_tensor: 56,
  ps_device_options: 8,
  ps_device_info: 104,
  ps_cache_desc: 56,
  ps_cache_bytes: 24,
  ps_counters: 40,
} as const;

export type DType = "f32" | "f16" | "bf16" | "i32";
export const DTYPES: readonly DType[] = ["f32", "f16", "bf16", "i32"];
export const DTYPE_BYTES: Readonly<Record<DType, number>> = { f32: 4, f16: 2, bf16: 2, i32: 4 };

/** Writes the fields of a struct in order, each at its natural alignment. */
class StructWriter {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  #offset = 0;

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.#view = new DataView(this.bytes.buffer);
  }

  i32(...values: number[]): this {
    for (const value of values) {
      this.#view.setInt32(this.#offset, value, true);
      this.#offset += 4;
    }
    return this;
  }

  i64(...values: (number | bigint)[]): this {
    for (const value of values) {
      this.#view.setBigInt64(this.#offset, BigInt(value), true);
      this.#offset += 8;
    }
    return this;
  }
}

/** A `ps_tensor`. `buffer` is the handle's address; the shape has one to three dimensions; `rowStride` counts elements. */
export function tensorStruct(
  buffer: bigint,
  offsetBytes: number,
  rowStride: number,
  shape: readonly number[],
  dtype: DType,
): Uint8Array<ArrayBuffer> {
  return new StructWriter(STRUCT_BYTES.ps_tensor)
    .i64(buffer, offsetBytes, rowStride, shape[0] ?? 1, shape[1] ?? 1, shape[2] ?? 1)
    .i32(shape.length, DTYPES.indexOf(dtype)).bytes;
}

export function deviceOptionsStruct(index: number, numThreads: number): Uint8Array<ArrayBuffer> {
  return new StructWriter(STRUCT_BYTES.ps_device_options).i32(index, numThreads).bytes;
}

/** What a device says of itself. Bytes of device memory; of main memory on the CPU. */
export interface DeviceInfo {
  totalBytes: number;
  availableBytes: number;
  allocatedBytes: number;
  backend: "cpu" | "cuda";
  numThreads: number;
  /** Whether work can be recorded and replayed ({@link Device.record}). */
  records: boolean;
  /** CUDA compute capability times ten, 90 for 9.0; 0 on the CPU. */
  capability: number;
  /** Instruction set, or the GPU's name. */
  name: string;
}

export function readDeviceInfo(bytes: Uint8Array<ArrayBuffer>): DeviceInfo {
  const view = new DataView(bytes.buffer);
  const name = bytes.subarray(40, 104);
  return {
    totalBytes: Number(view.getBigInt64(0, true)),
    availableBytes: Number(view.getBigInt64(8, true)),
    allocatedBytes: Number(view.getBigInt64(16, true)),
    backend: view.getInt32(24, true) === 0 ? "cpu" : "cuda",
    numThreads: view.getInt32(28, true),
    records: view.getInt32(32, true) !== 0,
    capability: view.getInt32(36, true),
    name: new TextDecoder().decode(name.subarray(0, name.indexOf(0))),
  };
}

/** Page statistics that a cache keeps beside mean and standard deviation: variances for `diag`, minima and maxima for `quest`. */
export interface KeptStatistics {
  variance?: boolean;
  minMax?: boolean;
  /** Means as 8-bit floats (e4m3) with one scale a row. CUDA, pages of 16 bits. */
  f8Means?: boolean;
}

/** Shape of a KV cache. Each page spans all layers and KV heads. */
export interface CacheShape {
  /** Physical pages in the pool. */
  numPages: number;
  /** Longest page table of one sequence. */
  maxPagesPerSequence: number;
  numLayers: number;
  numQueryHeads: number;
  /** A divisor of `numQueryHeads`. */
  numKvHeads: number;
  /** A multiple of 16 up to 512. */
  headDim: number;
  /** Tokens a page: 8, 16, 32 or 64. */
  pageSize: number;
  /** Of keys, values and statistics. */
  dtype: "f32" | "f16" | "bf16";
  statistics: KeptStatistics;
  /** Largest batch of a decode step. */
  maxSequences: number;
  /**
   * 8 where every sequence takes its pages in groups of 8 neighbours (`engine/pages/page_table.ts`), so that the CUDA build can score groups
   * first; default 0.
   */
  groupPages?: 0 | 8;
}

export function cacheDescStruct(shape: CacheShape): Uint8Array<ArrayBuffer> {
  const { variance, minMax, f8Means } = shape.statistics;
  const statistics = (variance ? 1 : 0) | (minMax ? 2 : 0) | (f8Means ? 4 : 0);
  return new StructWriter(STRUCT_BYTES.ps_cache_desc)
    .i64(shape.numPages, shape.maxPagesPerSequence)
    .i32(shape.numLayers, shape.numQueryHeads, shape.numKvHeads, shape.headDim, shape.pageSize)
    .i32(DTYPES.indexOf(shape.dtype), statistics, shape.maxSequences, shape.groupPages ?? 0, 0).bytes;
}

/** Bytes of a KV cache. */
export interface CacheBytes {
  kv: number;
  statistics: number;
  scratch: number;
}

/** What the operations of a cache did, counted natively; a row is one sequence, layer and KV head of one step. */
export interface Counters {
  /** Rows whose selection left at least one page out. */
  rowsSelected: number;
  /** Rows of statistics read, of pages and of groups of pages. */
  pagesScored: number;
  /** Pages that decode attention read. */
  pagesAttended: number;
  /** Pages that dense attention would have read. */
  pagesInContext: number;
  /** Selections, each of a layer and step, that left a page out in at least one row. */
  selections: number;
}

/** The numbers of a struct that holds i64 fields only. */
export function readInt64Fields(bytes: Uint8Array<ArrayBuffer>): number[] {
  return Array.from(new BigInt64Array(bytes.buffer), Number);
}
