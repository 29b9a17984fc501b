/** Warns when the garbage collector finds a handle that nobody closed. It does not close: the order of closing matters. */
const forgotten = new FinalizationRegistry<string>((name) => {
  reportForgotten(name);
});

function reportForgotten(name: string): void {
  const line = `pagesift: a ${name} was collected without being closed; use "using" or call close()\n`;
  Deno.stderr.writeSync(new TextEncoder().encode(line));
}

/** A native object with one owner. Reading {@link Handle.pointer} throws once it is closed; closing twice does nothing. */
export abstract class Handle implements Disposable {
  #pointer: Deno.PointerObject | null;

  protected constructor(pointer: Deno.PointerObject) {
    this.#pointer = pointer;
    forgotten.register(this, this.constructor.name, this);
  }

  /** The native address. @throws {Error} once the handle is closed. */
  get pointer(): Deno.PointerObject {
    if (!this.#pointer) throw new Error(`The ${this.constructor.name} is closed`);
    return this.#pointer;
  }

  get closed(): boolean {
    return this.#pointer === null;
  }

  /** Frees the native object and what depends on it. */
  close(): void {
    if (!this.#pointer) return;
    this.release(this.#pointer);
    this.#pointer = null;
    forgotten.unregister(this);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  protected abstract release(pointer: Deno.PointerObject): void;
}

/** Reads the pointer that a native call left in a one-element array. */
export function pointerFrom(out: BigUint64Array): Deno.PointerObject {
  const pointer = Deno.UnsafePointer.create(out[0] ?? 0n);
  if (!pointer) throw new Error("The native library returned a null handle");
  return pointer;
}
