/** Detects other programs that use the processor during a measurement. Linux only; elsewhere it detects nothing. */

/** Clock ticks per second in the kernel's files. */
const TICKS_A_SECOND = 100;

interface Ticks {
  /** Ticks of all programs. */
  busy: number;
  /** Ticks of our processes. */
  own: number;
  seconds: number;
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}

/** Ticks of the first line of `/proc/stat` that were neither idle nor waiting for a disk. */
export function busyTicks(text: string): number {
  const numbers = (text.split("\n")[0] ?? "").split(/\s+/).slice(1, 9).map(Number);
  return numbers.reduce((sum, value, index) => index === 3 || index === 4 ? sum : sum + value, 0);
}

/** Ticks of a process, from its `/proc/PID/stat`; the name in parentheses may contain spaces. */
export function processTicks(text: string): number {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
}

/** Watches the machine on behalf of some processes. */
export class LoadWatch {
  /** @param read returns the text of a file, or undefined */
  constructor(readonly pids: readonly number[], readonly read: (path: string) => string = readText) {}

  #read(): Ticks {
    const own = this.pids.map((pid) => processTicks(this.read(`/proc/${pid}/stat`))).reduce((sum, one) => sum + one, 0);
    return { busy: busyTicks(this.read("/proc/stat")), own, seconds: performance.now() / 1000 };
  }

  /** Runs a function. Returns its result and the cores that other programs used in the meantime. */
  async during<T>(work: () => T | Promise<T>): Promise<{ value: T; foreignCores: number }> {
    const before = this.#read();
    const value = await work();
    const after = this.#read();
    const ticks = after.busy - before.busy - (after.own - before.own);
    const seconds = Math.max(after.seconds - before.seconds, 1 / TICKS_A_SECOND);
    return { value, foreignCores: Math.max(0, ticks / TICKS_A_SECOND / seconds) };
  }
}

/** Cores that other programs may use during a measurement. */
const MAX_FOREIGN_CORES = 0.15;
const LOOK_MS = 300;

/**
 * Repeats a measurement until no other program disturbs it, or the tries are used up; `disturbed` counts discarded
 * ones.
 */
export async function measureUndisturbed(
  watch: LoadWatch,
  measure: () => number | Promise<number>,
  tries: number,
): Promise<{ seconds: number; disturbed: number; undisturbed: boolean }> {
  for (let disturbed = 0;; disturbed++) {
    await waitForIdle(watch, tries);
    const { value, foreignCores } = await watch.during(measure);
    const undisturbed = foreignCores <= MAX_FOREIGN_CORES;
    if (undisturbed || disturbed + 1 >= tries) return { seconds: value, disturbed, undisturbed };
  }
}

async function waitForIdle(watch: LoadWatch, looks: number): Promise<void> {
  const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  for (let look = 0; look < looks; look++) {
    if ((await watch.during(pause)).foreignCores <= MAX_FOREIGN_CORES) return;
  }
}
