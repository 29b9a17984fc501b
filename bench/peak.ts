/** What the device reads at most. */
import type { Device } from "../ffi/device.ts";
import { writeRepeated } from "./random_numbers.ts";
import { median } from "./statistics.ts";

/** More than any cache. */
const PEAK_BYTES = { cuda: 4 * 2 ** 30, cpu: 256 << 20 } as const;
const REPETITIONS = 10;

/** Bytes a second of a plain read of a large buffer of random numbers. */
export function measurePeak(device: Device, block: Uint16Array<ArrayBuffer>): number {
  const { backend, availableBytes } = device.describe();
  const buffer = device.createBuffer(Math.min(PEAK_BYTES[backend], Math.floor(availableBytes / 16) * 4));
  try {
    writeRepeated((piece, at) => buffer.write(piece, at), block, buffer.bytes);
    buffer.scan();
    const seconds = Array.from({ length: REPETITIONS }, () => {
      const started = performance.now();
      buffer.scan();
      return (performance.now() - started) / 1000;
    });
    return buffer.bytes / median(seconds);
  } finally {
    buffer.close();
  }
}
