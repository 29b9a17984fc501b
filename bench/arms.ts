/** Arms that alternate, each checked against the native counters. */
import { countedBetween } from "../engine/run_stats.ts";
import { eventLoopYield } from "../engine/event_loop.ts";
import type { Device, DeviceBuffer } from "../ffi/device.ts";
import type { KvCache } from "../ffi/kv_cache.ts";
import type { PeakReader } from "./peak.ts";
import type { Counters } from "../ffi/structs.ts";

/** Something that is timed: `calls` calls of an operation. */
export interface Arm {
  name: string;
  calls: number;
  operation: (call: number) => void;
  /** Checks the native counters of all calls together. @throws {Error} if they contradict the arm */
  check: (counted: Counters) => void;
}

/** The measurements of an arm. */
export interface ArmResult<A extends Arm> {
  arm: A;
  /** Seconds per call, for every repetition. */
  seconds: number[];
  /** Counters of all calls of one repetition. */
  counted: Counters;
}

/** An arm that is ready to start: recorded if the device supports recording. */
interface Runner extends Disposable {
  start: () => void;
  [Symbol.dispose]: () => void;
}

function prepare(device: Device, { calls, operation }: Arm): Runner {
  const all = (): void => {
    for (let call = 0; call < calls; call++) operation(call);
  };
  all(); // allocates everything before the recording
  if (!device.records) return { start: all, [Symbol.dispose]: () => {} };
  const graph = device.record(all);
  return { start: () => graph.launch(), [Symbol.dispose]: () => graph.close() };
}

/**
 * Alternates the arms and a plain read, `warmups` times untimed and `repetitions` times timed; counters are read and checked in
 * every turn. `peakRate` is the bytes per second of the plain read.
 */
export async function timeArms<A extends Arm>(
  device: Device,
  cache: KvCache,
  arms: readonly A[],
  { warmups, repetitions, signal, peak }: {
    warmups: number;
    repetitions: number;
    signal?: AbortSignal | undefined;
    peak: PeakReader;
  },
): Promise<{ results: ArmResult<A>[]; peakRate: number }> {
  const yieldToEventLoop = eventLoopYield(signal);
  using owned = new DisposableStack();
  const probe = owned.use(device.createBuffer(4));
  const runners = arms.map((arm) => owned.use(prepare(device, arm)));
  const peakSeconds: number[] = [];
  const results = arms.map((arm) => ({ arm, seconds: [] as number[], counted: cache.counters() }));
  for (let round = -warmups; round < repetitions; round++) {
    for (const [index, result] of results.entries()) {
      await yieldToEventLoop();
      const seconds = turn(cache, runners[index] as Runner, result, probe);
      if (round >= 0) result.seconds.push(seconds / result.arm.calls);
    }
    peakSeconds.push(peak.read());
  }
  return { results, peakRate: peak.rate(peakSeconds) };
}

/** Starts an arm, waits for it and checks what it did. Returns seconds. */
function turn<A extends Arm>(cache: KvCache, runner: Runner, result: ArmResult<A>, probe: DeviceBuffer): number {
  const four = new Uint8Array(4);
  const before = cache.counters();
  probe.read(four);
  const started = performance.now();
  runner.start();
  probe.read(four); // a read waits for everything that was started
  const seconds = (performance.now() - started) / 1000;
  result.counted = countedBetween(before, cache.counters());
  result.arm.check(result.counted);
  return seconds;
}
