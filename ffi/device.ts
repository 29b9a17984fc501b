import { NativeError, Status } from "./errors.ts";
import { Handle, pointerFrom } from "./handle.ts";
import { type LibraryKind, openLibrary } from "./library.ts";
import { type DeviceInfo, deviceOptionsStructs, type DType, DTYPE_BYTES, readDeviceInfo } from "./structs.ts";
import { STRUCT_BYTES, type Symbols } from "./symbols.ts";
import { Tensor } from "./tensor.ts";

const MESSAGE_BYTES = 1024;

/** How {@link Device.open} opens a device. */
export interface DeviceOptions {
  /** Which GPU, as CUDA numbers them. Default 0. */
  index?: number;
  /**
   * Several GPUs as one group, in place of `index`: a buffer or cache exists on each, and an operation runs on each with its own contents.
   * On the CPU, numbers of members that share it, for tests.
   */
  indices?: readonly number[];
  /** CPU threads. Default: one per processor that this process may use. */
  threads?: number;
  /** Path of the native library. Default: `PAGESIFT_LIBRARY`, else `build/` beside the module's own folder. */
  library?: string;
}

function textOf(message: Uint8Array): string {
  return new TextDecoder().decode(message.subarray(0, message.indexOf(0)));
}

/**
 * A CPU or a GPU that owns buffers and KV caches. Closing it closes all of them.
 *
 * ```ts
 * import { Device } from "@pagesift/pagesift";
 *
 * using device = Device.open("cpu");
 * const ones = device.upload(new Float32Array(6).fill(1), [2, 3]);
 * console.log(ones.rows(1, 1).readFloats()); // Float32Array(3) [ 1, 1, 1 ]
 * ```
 */
export class Device extends Handle {
  /**
   * The functions of the native library.
   *
   * @internal
   */
  readonly native: Symbols;
  /** Which build of the native library the device belongs to. */
  readonly backend: DeviceInfo["backend"];
  /** Whether {@link record} works on this device. */
  readonly records: boolean;
  readonly #children = new Set<Handle>();

  private constructor(
    pointer: Deno.PointerObject,
    native: Symbols,
    /** Devices of the group; 1 for a single device. */
    readonly members: number,
  ) {
    super(pointer);
    this.native = native;
    const { backend, records } = this.describe();
    this.backend = backend;
    this.records = records;
  }

  /**
   * Opens a device; the caller closes it.
   *
   * @throws {NativeError} when there is no such device, no native library, or the library is the other build
   */
  static open(kind: LibraryKind = "cpu", options: DeviceOptions = {}): Device {
    const native = openLibrary(kind, options.library);
    const out = new BigUint64Array(1);
    const message = new Uint8Array(MESSAGE_BYTES);
    const indices = options.indices ?? [options.index ?? 0];
    const structs = deviceOptionsStructs(indices, options.threads ?? 0);
    const status = indices.length === 1
      ? native.ps_device_open(structs, out, message, MESSAGE_BYTES)
      : native.ps_group_open(structs, indices.length, out, message, MESSAGE_BYTES);
    if (status !== Status.Ok) throw new NativeError(status, textOf(message) || "The device could not be opened");
    const device = new Device(pointerFrom(out), native, indices.length);
    const { backend } = device;
    if (backend === kind) return device;
    device.close();
    throw new NativeError(
      Status.NoDevice,
      `The native library named by ${options.library === undefined ? "PAGESIFT_LIBRARY" : "the library option"} ` +
        `is built for ${backend}, not ${kind}; name another one, or use device ${backend}`,
    );
  }

  /**
   * Throws unless `status`, which the latest native call of this thread returned, is `Ok`. The library stores the message for the
   * thread of the failed call, so a nonblocking call, which runs on another thread, passes its own buffer ({@link wait}).
   *
   * @internal
   */
  check(status: number): void {
    if (status === Status.Ok) return;
    const message = new Uint8Array(MESSAGE_BYTES);
    this.native.ps_error_message(message, MESSAGE_BYTES);
    throw new NativeError(status, textOf(message));
  }

  /**
   * What the device is and how much memory is free. Looking up the free memory is too slow for every decode step; {@link backend} and
   * {@link records} never change and cost nothing.
   */
  describe(): DeviceInfo {
    const out = new Uint8Array(STRUCT_BYTES.ps_device_info);
    this.check(this.native.ps_device_describe(this.pointer, out));
    return readDeviceInfo(out);
  }

  /**
   * Runs `work` with all its copies, weights and operations restricted to one member of the group.
   *
   * @throws {NativeError} when there is no such member
   */
  only(member: number, work: () => void): void {
    this.check(this.native.ps_group_only(this.pointer, member));
    try {
      work();
    } finally {
      this.native.ps_group_only(this.pointer, -1);
    }
  }

  /**
   * Resolves when the device has finished all its work, without blocking the event loop.
   *
   * @throws {NativeError} when some of that work failed
   */
  async wait(): Promise<void> {
    const message = new Uint8Array(MESSAGE_BYTES);
    const status = await this.native.ps_device_wait(this.pointer, message, MESSAGE_BYTES);
    if (status !== Status.Ok) throw new NativeError(status, textOf(message));
  }

  /**
   * Allocates a buffer of zeros.
   *
   * @throws {NativeError} when there is not enough memory
   */
  createBuffer(bytes: number): DeviceBuffer {
    const out = new BigUint64Array(1);
    this.check(this.native.ps_buffer_create(this.pointer, BigInt(bytes), out));
    return new DeviceBuffer(this, pointerFrom(out), bytes);
  }

  /**
   * Allocates a tensor of zeros with its own buffer, which closes with the device or with `tensor.buffer.close()`.
   *
   * @throws {NativeError} when there is not enough memory
   */
  createTensor(dtype: DType, shape: readonly number[]): Tensor {
    const count = shape.reduce((product, size) => product * size, 1);
    return new Tensor(this.createBuffer(count * DTYPE_BYTES[dtype]), dtype, shape);
  }

  /**
   * Allocates a tensor with its own buffer and copies `data` to it: f32 from floats, i32 from integers, in row-major order.
   *
   * @throws {NativeError} when there is not enough memory, or `data` is longer than the shape
   */
  upload(data: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>, shape: readonly number[]): Tensor {
    const tensor = this.createTensor(data instanceof Float32Array ? "f32" : "i32", shape);
    tensor.write(data);
    return tensor;
  }

  /**
   * Waits for the oldest read that was started ({@link DeviceBuffer.startRead}) and fills `target`, which is as long, but not for work that
   * was started after it.
   *
   * @throws {NativeError} when no read of this length was started, or earlier work of the device failed
   */
  finishRead(target: ArrayBufferView<ArrayBuffer>): void {
    this.check(this.native.ps_read_finish(this.pointer, bytesOf(target), BigInt(target.byteLength)));
  }

  /**
   * Records the operations that `work` starts instead of running them. {@link Graph.launch} replays them with one call; they read
   * positions, lengths and tables from device memory at every replay. `work` must not allocate, copy or wait.
   *
   * @throws {NativeError} if the device cannot record ({@link records}); and everything that `work` throws
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

  /**
   * Registers a handle that must be closed before the device.
   *
   * @internal
   */
  adopt(child: Handle): void {
    this.#children.add(child);
  }

  /**
   * Removes a handle that has been closed.
   *
   * @internal
   */
  forget(child: Handle): void {
    this.#children.delete(child);
  }

  /** @internal */
  protected override release(pointer: Deno.PointerObject): void {
    for (const child of [...this.#children]) child.close();
    this.native.ps_device_close(pointer);
  }
}

/** A block of memory on a device, as {@link Device.createBuffer} allocates it. Offsets and sizes are in bytes. */
export class DeviceBuffer extends Handle {
  /**
   * The handle as a number, for native structs.
   *
   * @internal
   */
  readonly address: bigint;

  /** @internal */
  constructor(
    /** The device that owns the buffer. */
    readonly device: Device,
    pointer: Deno.PointerObject,
    /** Size in bytes. */
    readonly bytes: number,
  ) {
    super(pointer);
    this.address = Deno.UnsafePointer.value(pointer);
    device.adopt(this);
  }

  /**
   * Copies `source` to the device, starting `offsetBytes` into the buffer.
   *
   * @throws {NativeError} when it does not fit
   */
  write(source: ArrayBufferView<ArrayBuffer>, offsetBytes = 0): void {
    this.device.check(
      this.device.native.ps_buffer_write(this.pointer, BigInt(offsetBytes), bytesOf(source), BigInt(source.byteLength)),
    );
  }

  /**
   * Waits for the device, then fills `target` from `offsetBytes` on.
   *
   * @throws {NativeError} when the buffer ends before `target` is full, or earlier work of the device failed
   */
  read(target: ArrayBufferView<ArrayBuffer>, offsetBytes = 0): void {
    this.device.check(
      this.device.native.ps_buffer_read(this.pointer, BigInt(offsetBytes), bytesOf(target), BigInt(target.byteLength)),
    );
  }

  /**
   * Starts to read 1 to 1,024 bytes, for {@link Device.finishRead}. Work that is started afterwards does not delay it; at most 4 reads are
   * under way per device.
   *
   * @throws {NativeError} when the buffer ends before, or more reads are under way
   */
  startRead(bytes: number, offsetBytes = 0): void {
    this.device.check(this.device.native.ps_read_start(this.pointer, BigInt(offsetBytes), BigInt(bytes)));
  }

  /** Reads the whole buffer as fast as the device can and returns the exclusive or of its 32-bit words. Measures read bandwidth. */
  scan(): number {
    const out = new Uint32Array(1);
    this.device.check(this.device.native.ps_buffer_scan(this.pointer, out));
    return out[0] ?? 0;
  }

  /** @internal */
  protected override release(pointer: Deno.PointerObject): void {
    this.device.native.ps_buffer_close(pointer);
    this.device.forget(this);
  }
}

/** Work that {@link Device.record} recorded. The buffers and caches that it uses must outlive it. */
export class Graph extends Handle {
  /** @internal */
  constructor(
    /** The device that runs the work. */
    readonly device: Device,
    pointer: Deno.PointerObject,
  ) {
    super(pointer);
    device.adopt(this);
  }

  /**
   * Starts the recorded work.
   *
   * @throws {NativeError} when the device refuses it
   */
  launch(): void {
    this.device.check(this.device.native.ps_graph_launch(this.pointer));
  }

  /** @internal */
  protected override release(pointer: Deno.PointerObject): void {
    this.device.native.ps_graph_close(pointer);
    this.device.forget(this);
  }
}

/** The bytes of a view, without a copy. */
export function bytesOf(view: ArrayBufferView<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}
