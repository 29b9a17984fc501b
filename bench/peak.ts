/** The read bandwidth of the device, measured in alternation with the arms. */
import type { Device, DeviceBuffer } from "../ffi/device.ts";
import type { DeviceInfo } from "../ffi/structs.ts";
import { randomBlock, writeRepeated } from "./random_numbers.ts";
import { median } from "./statistics.ts";

/** A GPU with so much memory has room for the larger buffer. */
const LARGE_GPU_BYTES = 2 ** 36;
/** Reads per round; the first ones may find the memory clock asleep. */
const READS = 3;

/**
 * Bytes per read: more than the last-level cache of nearly all machines, and on a large GPU so many that starting the read and waiting for it
 * takes about 1 % of the time (of 2 GiB, 6 % and more).
 */
export function peakBytes({ backend, totalBytes }: DeviceInfo): number {
  if (backend === "cpu") return 2 ** 28;
  return totalBytes >= LARGE_GPU_BYTES ? 2 ** 33 : 2 ** 31;
}

/** Reads a large buffer of random numbers a few times per round, in alternation with the arms. */
export class PeakReader implements Disposable {
  readonly #buffer: DeviceBuffer;
  readonly #owned: DisposableStack;

  constructor(device: Device) {
    const block = randomBlock();
    using owned = new DisposableStack();
    this.#buffer = owned.use(device.createBuffer(peakBytes(device.describe())));
    writeRepeated((piece, at) => this.#buffer.write(piece, at), block, this.#buffer.bytes);
    this.#buffer.scan();
    this.#owned = owned.move();
  }

  /** Seconds of the fastest of a few reads. */
  read(): number {
    return Math.min(...Array.from({ length: READS }, () => this.#readOnce()));
  }

  #readOnce(): number {
    const started = performance.now();
    this.#buffer.scan();
    return (performance.now() - started) / 1000;
  }

  /** Bytes per second of the median read. */
  rate(seconds: readonly number[]): number {
    return this.#buffer.bytes / median(seconds);
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** Bytes per second of reads: the median over a time in milliseconds. */
export function measureBandwidth(device: Device, milliseconds: number): number {
  using peak = new PeakReader(device);
  const seconds: number[] = [];
  const started = performance.now();
  while (performance.now() - started < milliseconds) seconds.push(peak.read());
  return peak.rate(seconds);
}
