/** Warns when the garbage collector finds a handle that is still open. It does not close it: the order of closing matters. */
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

  /** @internal */
  protected constructor(pointer: Deno.PointerObject) {
    this.#pointer = pointer;
    forgotten.register(this, this.constructor.name, this);
  }

  /**
   * The native address.
   *
   * @throws {Error} once the handle is closed
   * @internal
   */
  get pointer(): Deno.PointerObject {
    if (!this.#pointer) throw new Error(`The ${this.constructor.name} is closed`);
    return this.#pointer;
  }

  /** Whether {@link close} was called, here or on the device. */
  get closed(): boolean {
    return this.#pointer === null;
  }

  /** Frees the native object and everything that depends on it. A second call does nothing. */
  close(): void {
    if (!this.#pointer) return;
    this.release(this.#pointer);
    this.#pointer = null;
    forgotten.unregister(this);
  }

  /** Calls {@link close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Frees the native object; {@link close} calls it once.
   *
   * @internal
   */
  protected abstract release(pointer: Deno.PointerObject): void;
}

/** The pointer that a native call wrote to a one-element array. */
export function pointerFrom(out: BigUint64Array): Deno.PointerObject {
  const pointer = Deno.UnsafePointer.create(out[0] ?? 0n);
  if (!pointer) throw new Error("The native library returned a null handle");
  return pointer;
}
