import type { DeviceBuffer } from "./device.ts";
import { type DType, DTYPE_BYTES, tensorStruct } from "./structs.ts";

/**
 * A view of a device buffer: one to three dimensions, of which the inner ones are contiguous and the rows lie `rowStride` elements
 * apart. Views are cheap and share the buffer; the buffer owns the memory. Views of a block format (`BLOCKS`) cover whole rows.
 */
export class Tensor {
  readonly #struct: Uint8Array<ArrayBuffer>;
  /** Sizes, outermost dimension first. */
  readonly shape: readonly number[];
  /** Elements from one row to the next. */
  readonly rowStride: number;

  /** A view of `buffer`. `rowStride` defaults to the number of elements in a row. Native calls refuse a view beyond the buffer. */
  constructor(
    /** The memory that the view shows. */
    readonly buffer: DeviceBuffer,
    /** Type of the elements. */
    readonly dtype: DType,
    shape: readonly number[],
    /** Bytes from the start of the buffer to the first element. */
    readonly offsetBytes = 0,
    rowStride?: number,
  ) {
    this.shape = shape;
    this.rowStride = rowStride ?? shape.slice(1).reduce((product, size) => product * size, 1);
    this.#struct = tensorStruct(buffer.address, offsetBytes, this.rowStride, shape, dtype);
  }

  /**
   * The `ps_tensor` that native calls take.
   *
   * @throws {Error} once the buffer is closed
   * @internal
   */
  get struct(): Uint8Array<ArrayBuffer> {
    this.buffer.pointer;
    return this.#struct;
  }

  get #rowBytes(): number {
    return this.rowStride * DTYPE_BYTES[this.dtype];
  }

  /** Rows `[first, first + count)`. */
  rows(first: number, count: number): Tensor {
    const shape = [count, ...this.shape.slice(1)];
    return new Tensor(this.buffer, this.dtype, shape, this.offsetBytes + first * this.#rowBytes, this.rowStride);
  }

  /** Columns `[first, first + count)` of a tensor with two dimensions. */
  columns(first: number, count: number): Tensor {
    const offset = this.offsetBytes + first * DTYPE_BYTES[this.dtype];
    return new Tensor(this.buffer, this.dtype, [this.shape[0] ?? 1, count], offset, this.rowStride);
  }

  /** Elements `[first, first + count)` of a contiguous tensor, as one dimension. */
  flat(first: number, count: number): Tensor {
    return new Tensor(this.buffer, this.dtype, [count], this.offsetBytes + first * DTYPE_BYTES[this.dtype]);
  }

  /** The same rows viewed as `[rows, heads, width / heads]`. */
  heads(heads: number): Tensor {
    const width = this.shape.slice(1).reduce((product, size) => product * size, 1);
    const shape = [this.shape[0] ?? 1, heads, width / heads];
    return new Tensor(this.buffer, this.dtype, shape, this.offsetBytes, this.rowStride);
  }

  /**
   * Copies numbers to the start of a contiguous tensor.
   *
   * @throws {NativeError} when they do not fit the buffer
   */
  write(data: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>): void {
    this.buffer.write(data, this.offsetBytes);
  }

  /** Waits for the device and copies a contiguous f32 tensor back, in row-major order. */
  readFloats(): Float32Array<ArrayBuffer> {
    const out = new Float32Array(this.#count);
    this.buffer.read(out, this.offsetBytes);
    return out;
  }

  /** Waits for the device and copies a contiguous i32 tensor back, in row-major order. */
  readInts(): Int32Array<ArrayBuffer> {
    const out = new Int32Array(this.#count);
    this.buffer.read(out, this.offsetBytes);
    return out;
  }

  /** Starts to read a contiguous tensor of up to 1,024 bytes, for {@link Device.finishRead}. */
  startRead(): void {
    this.buffer.startRead(this.#count * 4, this.offsetBytes);
  }

  get #count(): number {
    return this.shape.reduce((product, size) => product * size, 1);
  }
}
