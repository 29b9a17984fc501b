import { type Ending, run } from "../../cli/main.ts";
import type { EndSignal, KeyMode, Sink, Source, World } from "../../cli/world.ts";
import { FakeEngine } from "./fake_engine.ts";

/** A stream that keeps what is written to it. */
export class FakeSink implements Sink {
  terminal = false;
  /** Takes at most this many bytes a call. */
  bytesPerWrite = Infinity;
  /** Thrown by every write once set. */
  failure: Error | undefined;
  #bytes: number[] = [];

  get text(): string {
    return new TextDecoder().decode(new Uint8Array(this.#bytes));
  }

  isTerminal(): boolean {
    return this.terminal;
  }

  writeSync(bytes: Uint8Array): number {
    if (this.failure) throw this.failure;
    const taken = bytes.subarray(0, this.bytesPerWrite);
    this.#bytes.push(...taken);
    return taken.length;
  }
}

/** stdin of given bytes; undefined stands for a terminal. */
export class FakeSource implements Source {
  #bytes: Uint8Array | undefined;

  constructor(input: string | Uint8Array | undefined) {
    this.#bytes = typeof input === "string" ? new TextEncoder().encode(input) : input;
  }

  isTerminal(): boolean {
    return this.#bytes === undefined;
  }

  read(buffer: Uint8Array): Promise<number | null> {
    const bytes = this.#bytes ?? new Uint8Array();
    if (bytes.length === 0) return Promise.resolve(null);
    const taken = bytes.subarray(0, buffer.length);
    buffer.set(taken);
    this.#bytes = bytes.subarray(taken.length);
    return Promise.resolve(taken.length);
  }
}

/** A terminal whose user presses these keys, one text per read, and then hangs up. */
export class FakeTerminal implements Source {
  readonly #keys: string[];

  constructor(keys: readonly string[]) {
    this.#keys = [...keys];
  }

  isTerminal(): boolean {
    return true;
  }

  read(buffer: Uint8Array): Promise<number | null> {
    const keys = this.#keys.shift();
    return Promise.resolve(keys === undefined ? null : new TextEncoder().encodeInto(keys, buffer).written);
  }
}

/** A machine made of variables. */
export class FakeWorld implements World {
  stdin: Source = new FakeSource(undefined);
  readonly stdout = new FakeSink();
  readonly stderr = new FakeSink();
  readonly engine = new FakeEngine();
  variables: Record<string, string> = {};
  /** Models that were looked for. */
  readonly wanted: string[] = [];
  died: EndSignal | undefined;
  keyMode: KeyMode = "lines";
  suspended = 0;
  #onSignal: ((signal: EndSignal) => void) | undefined;

  readonly models = {
    findModelFolder: (nameOrPath: string): Promise<string> => {
      this.wanted.push(nameOrPath);
      return Promise.resolve(nameOrPath);
    },
    loadEngine: (_: string, options: NonNullable<FakeEngine["loaded"]>): Promise<FakeEngine> => {
      this.engine.loaded = options;
      return Promise.resolve(this.engine);
    },
  };

  env(name: string): string | undefined {
    return this.variables[name];
  }

  columns(): number {
    return 80;
  }

  onEndSignal(handler: (signal: EndSignal) => void): Disposable {
    this.#onSignal = handler;
    return { [Symbol.dispose]: () => this.#onSignal = undefined };
  }

  setKeyMode(mode: KeyMode): void {
    this.keyMode = mode;
  }

  suspend(): void {
    this.suspended++;
  }

  dieBySignal(signal: EndSignal): void {
    this.died = signal;
  }

  /** Sends a signal to the program. */
  signal(name: EndSignal): void {
    this.#onSignal?.(name);
  }
}

/** What a run left behind. */
export interface RunResult {
  ending: Ending;
  stdout: string;
  stderr: string;
  world: FakeWorld;
  engine: FakeEngine;
}

/** Runs `pagesift` in-process in a fake world, which `prepare` may change first. */
export async function runFake(args: string[], prepare: (world: FakeWorld) => void = () => {}): Promise<RunResult> {
  const world = new FakeWorld();
  prepare(world);
  const ending = await run(args, world);
  return { ending, stdout: world.stdout.text, stderr: world.stderr.text, world, engine: world.engine };
}

/** Runs `pagesift generate` in-process. */
export function runGenerate(args: string[], prepare?: (world: FakeWorld) => void): Promise<RunResult> {
  return runFake(["generate", ...args], prepare);
}
