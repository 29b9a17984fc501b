/** A device, and the memory on it. */
import { NativeError, Status } from "./errors.ts";
import { Handle, pointerFrom } from "./handle.ts";
import { type LibraryKind, openLibrary } from "./library.ts";
import { type DeviceInfo, deviceOptionsStruct, type DType, DTYPE_BYTES, readDeviceInfo } from "./structs.ts";
import { STRUCT_BYTES, type Symbols } from "./symbols.ts";
import { Tensor } from "./tensor.ts";

const MESSAGE_BYTES = 1024;

export interface DeviceOptions {
  /** Which device of this kind. Default 0. */
  index?: number;
  /** CPU only. Default: one per processor that this process may use. */
  threads?: number;
}

function textOf(message: Uint8Array): string {
  return new TextDecoder().decode(message.subarray(0, message.indexOf(0)));
}

/** A CPU or a GPU, with its buffers and KV caches and the operations on them. Closing it closes all of them. */
export class Device extends Handle {
  readonly native: Symbols;
  readonly backend: DeviceInfo["backend"];
  /** Whether work can be recorded; see {@link record}. */
  readonly records: boolean;
  readonly #children = new Set<Handle>();

  private constructor(pointer: Deno.PointerObject, native: Symbols) {
    super(pointer);
    this.native = native;
    const { backend, records } = this.describe();
    this.backend = backend;
    this.records = records;
  }

  /** @throws {NativeError} when there is no such device, or no library for it. PAGESIFT_LIBRARY may name one of the other kind. */
  static open(kind: LibraryKind = "cpu", options: DeviceOptions = {}): Device {
    const native = openLibrary(kind);
    const out = new BigUint64Array(1);
    const message = new Uint8Array(MESSAGE_BYTES);
    const status = native.ps_device_open(
      deviceOptionsStruct(options.index ?? 0, options.threads ?? 0),
      out,
      message,
      MESSAGE_BYTES,
    );
    if (status !== Status.Ok) throw new NativeError(status, textOf(message) || "The device could not be opened");
    const device = new Device(pointerFrom(out), native);
    const { backend } = device;
    if (backend === kind) return device;
    device.close();
    throw new NativeError(
      Status.NoDevice,
      `PAGESIFT_LIBRARY names a library for ${backend}, wanted ${kind}; unset it, or use --device ${backend}`,
    );
  }

  /**
   * Throws unless the status, which the latest native call of this thread returned, is `Ok`. The library keeps the message for the
   * thread of the failed call, so a nonblocking call, which runs on another thread, brings its own ({@link wait}).
   */
  check(status: number): void {
    if (status === Status.Ok) return;
    const message = new Uint8Array(MESSAGE_BYTES);
    this.native.ps_error_message(message, MESSAGE_BYTES);
    throw new NativeError(status, textOf(message));
  }

  /** Looks up the free memory, which takes too long for every step: {@link backend} and {@link records} never change. */
  describe(): DeviceInfo {
    const out = new Uint8Array(STRUCT_BYTES.ps_device_info);
    this.check(this.native.ps_device_describe(this.pointer, out));
    return readDeviceInfo(out);
  }

  /** Resolves when all work of the device is done. */
  async wait(): Promise<void> {
    const message = new Uint8Array(MESSAGE_BYTES);
    const status = await this.native.ps_device_wait(this.pointer, message, MESSAGE_BYTES);
    if (status !== Status.Ok) throw new NativeError(status, textOf(message));
  }

  /** A buffer of zeros. */
  createBuffer(bytes: number): DeviceBuffer {
    const out = new BigUint64Array(1);
    this.check(this.native.ps_buffer_create(this.pointer, BigInt(bytes), out));
    return new DeviceBuffer(this, pointerFrom(out), bytes);
  }

  /** A tensor of zeros in a buffer of its own, which closes with the device or with `tensor.buffer.close()`. */
  createTensor(dtype: DType, shape: readonly number[]): Tensor {
    const count = shape.reduce((product, size) => product * size, 1);
    return new Tensor(this.createBuffer(count * DTYPE_BYTES[dtype]), dtype, shape);
  }

  /** A tensor with a copy of `data`, in a buffer of its own. */
  upload(data: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>, shape: readonly number[]): Tensor {
    const tensor = this.createTensor(data instanceof Float32Array ? "f32" : "i32", shape);
    tensor.write(data);
    return tensor;
  }

  /**
   * Records the operations that `work` starts instead of running them, to be replayed with one call. They read positions, lengths and
   * tables from device memory at every replay. `work` must not allocate, copy or wait.
   *
   * @throws {NativeError} if the device cannot record ({@link records}), or whatever `work` throws
   */
  record(work: () => void): Graph {
    this.check(this.native.ps_graph_begin(this.pointer));
    const out = new BigUint64Array(1);
    let failed = true;
    try {
      work();
      failed = false;
    } finally {
      const status = this.native.ps_graph_end(this.pointer, out);
      if (failed && status === Status.Ok) this.native.ps_graph_close(pointerFrom(out));
      if (!failed) this.check(status);
    }
    return new Graph(this, pointerFrom(out));
  }

  /** Registers something that must be closed before the device. */
  adopt(child: Handle): void {
    this.#children.add(child);
  }

  forget(child: Handle): void {
    this.#children.delete(child);
  }

  protected override release(pointer: Deno.PointerObject): void {
    for (const child of [...this.#children]) child.close();
    this.native.ps_device_close(pointer);
  }
}

/** Memory on a device. */
export class DeviceBuffer extends Handle {
  readonly address: bigint;

  constructor(readonly device: Device, pointer: Deno.PointerObject, readonly bytes: number) {
    super(pointer);
    this.address = Deno.UnsafePointer.value(pointer);
    device.adopt(this);
  }

  /** Copies `source` to the device. @throws {NativeError} when it does not fit. */
  write(source: ArrayBufferView<ArrayBuffer>, offsetBytes = 0): void {
    this.device.check(
      this.device.native.ps_buffer_write(this.pointer, BigInt(offsetBytes), bytesOf(source), BigInt(source.byteLength)),
    );
  }

  /** Waits for the device, then fills `target`. */
  read(target: ArrayBufferView<ArrayBuffer>, offsetBytes = 0): void {
    this.device.check(
      this.device.native.ps_buffer_read(this.pointer, BigInt(offsetBytes), bytesOf(target), BigInt(target.byteLength)),
    );
  }

  /** Reads all of it, as fast as the device can, and returns the exclusive or of its words; for measuring read bandwidth. */
  scan(): number {
    const out = new Uint32Array(1);
    this.device.check(this.device.native.ps_buffer_scan(this.pointer, out));
    return out[0] ?? 0;
  }

  protected override release(pointer: Deno.PointerObject): void {
    this.device.native.ps_buffer_close(pointer);
    this.device.forget(this);
  }
}

/** Recorded work. The buffers and caches that it uses must outlive it. */
export class Graph extends Handle {
  constructor(readonly device: Device, pointer: Deno.PointerObject) {
    super(pointer);
    device.adopt(this);
  }

  /** Starts the recorded work. */
  launch(): void {
    this.device.check(this.device.native.ps_graph_launch(this.pointer));
  }

  protected override release(pointer: Deno.PointerObject): void {
    this.device.native.ps_graph_close(pointer);
    this.device.forget(this);
  }
}

/** The bytes of a view, without a copy. */
export function bytesOf(view: ArrayBufferView<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}
