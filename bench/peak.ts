/** The read bandwidth of the device, measured in alternation with the arms. */
import type { Device, DeviceBuffer } from "../ffi/device.ts";
import { randomBlock, writeRepeated } from "./random_numbers.ts";
import { median } from "./statistics.ts";

/** Bytes per read; more than the last-level cache of nearly all machines. */
export const PEAK_BYTES = { cuda: 2 ** 31, cpu: 2 ** 28 } as const;

/** Reads a large buffer of random numbers once per round, under the same conditions as the arms. */
export class PeakReader implements Disposable {
  readonly #buffer: DeviceBuffer;
  readonly #owned: DisposableStack;

  constructor(device: Device) {
    const block = randomBlock();
    using owned = new DisposableStack();
    this.#buffer = owned.use(device.createBuffer(PEAK_BYTES[device.backend]));
    writeRepeated((piece, at) => this.#buffer.write(piece, at), block, this.#buffer.bytes);
    this.#buffer.scan();
    this.#owned = owned.move();
  }

  /** Seconds of one read. */
  read(): number {
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
