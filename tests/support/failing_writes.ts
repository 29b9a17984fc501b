/** A Worker whose writes to a buffer of another thread's fail, again and again, and that counts them, until it is asked to end. */
import { openLibrary } from "../../ffi/library.ts";
import { DEVICE_KIND } from "./device.ts";

export interface FailingWrites {
  /** Path of the library that the buffer is of. */
  library: string;
  /** Address of the buffer. */
  buffer: bigint;
  /** Where to write, outside the buffer. */
  offset: number;
  /** Counts the failures; the Worker ends when the second number is not zero. */
  shared: Int32Array<SharedArrayBuffer>;
}

const scope = self as unknown as {
  onmessage: (event: MessageEvent<FailingWrites>) => void;
  postMessage(_: "done"): void;
};

scope.onmessage = ({ data: { library, buffer, offset, shared } }) => {
  const native = openLibrary(DEVICE_KIND, library);
  const pointer = Deno.UnsafePointer.create(buffer);
  const source = new Uint8Array(1);
  while (Atomics.load(shared, 1) === 0) {
    if (native.ps_buffer_write(pointer, BigInt(offset), source, 1n) !== 0) Atomics.add(shared, 0, 1);
  }
  scope.postMessage("done");
};
