/** What the library answers to a caller that forgot what it closed, by the raw calls: `Handle` lets none of this through. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import type { Device } from "../../ffi/device.ts";
import { NativeError, Status } from "../../ffi/errors.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import { liveHandles } from "../../ffi/library.ts";
import type { CacheShape } from "../../ffi/structs.ts";
import { isolateLibrary, openDevice, withDevice } from "../support/device.ts";
import type { FailingWrites } from "../support/failing_writes.ts";

const SHAPE: CacheShape = {
  ...{ numPages: 8, maxPagesPerSequence: 8, numLayers: 1, numQueryHeads: 2, numKvHeads: 1, headDim: 16, pageSize: 8 },
  ...{ dtype: "f32", statistics: {}, maxSequences: 1 },
};

Deno.test("ps_buffer_close and ps_cache_close of a closed handle are refused, and so is its use", () => {
  withDevice((device) => {
    const [buffer, cache] = [device.createBuffer(64), KvCache.create(device, SHAPE)];
    const [bytes, pages] = [buffer.pointer, cache.pointer];
    buffer.close();
    cache.close();
    const { native } = device;
    const target = new Uint8Array(64);
    assertEquals([
      native.ps_buffer_close(bytes),
      native.ps_buffer_write(bytes, 0n, target, 64n),
      native.ps_buffer_read(bytes, 0n, target, 64n),
      native.ps_cache_close(pages),
      native.ps_page_statistics(pages, 0, 1),
      native.ps_cache_reset_counters(pages),
    ], Array(6).fill(Status.InvalidArgument));
  });
});

Deno.test("a closed device refuses every call, also a second close", () => {
  const device = openDevice();
  const { pointer, native } = device;
  device.close();
  assertEquals([
    native.ps_device_close(pointer),
    native.ps_device_describe(pointer, new Uint8Array(256)),
    native.ps_buffer_create(pointer, 64n, new BigUint64Array(1)),
  ], Array(3).fill(Status.InvalidArgument));
  assertEquals(liveHandles(), 0);
});

Deno.test("ps_device_close while waits are pending closes the device, and each wait has a status", async () => {
  for (let round = 0; round < 20; round++) {
    const device = openDevice();
    const { pointer, native } = device;
    const waits = Array.from({ length: 4 }, () => native.ps_device_wait(pointer, null, 0));
    device.close();
    const statuses = await Promise.all(waits);
    assert(statuses.every((status) => status === Status.Ok || status === Status.InvalidArgument), `${statuses}`);
  }
  assertEquals(liveHandles(), 0);
});

/** The library's message for the latest failed call of this thread. */
function errorMessage({ native }: Device): string {
  const message = new Uint8Array(200);
  assertEquals(native.ps_error_message(message, message.length), Status.Ok);
  return new TextDecoder().decode(message.subarray(0, message.indexOf(0)));
}

Deno.test("ps_error_message says why a call on a closed handle failed", () => {
  withDevice((device) => {
    const buffer = device.createBuffer(64);
    const { pointer } = buffer;
    buffer.close();
    assertEquals(device.native.ps_buffer_close(pointer), Status.InvalidArgument);
    assertMatch(errorMessage(device), /closed/);
  });
});

Deno.test("the failure of a pending ps_device_wait has its own message, whatever failed since on another device", async () => {
  const [device, other] = [openDevice(), openDevice()];
  const { pointer, native } = device;
  device.close();
  const message = new Uint8Array(200);
  const wait = native.ps_device_wait(pointer, message, message.length);
  assertThrows(() => other.createBuffer(-1), NativeError, "-1");
  assertEquals(await wait, Status.InvalidArgument);
  assertMatch(new TextDecoder().decode(message), /^The device is closed/);
  assertMatch(errorMessage(other), /-1$/);
  other.close();
});

Deno.test("a failed call has its own message although another thread has failed on the same device since", async () => {
  const device = openDevice();
  const buffer = device.createBuffer(64);
  const shared = new Int32Array(new SharedArrayBuffer(8));
  const worker = new Worker(new URL("../support/failing_writes.ts", import.meta.url), { type: "module" });
  const done = new Promise((resolve) => worker.onmessage = resolve);
  try {
    const task: FailingWrites = { library: isolateLibrary(), buffer: buffer.address, offset: 2000, shared };
    worker.postMessage(task);
    const status = device.native.ps_buffer_write(buffer.pointer, 1000n, new Uint8Array(1), 1n);
    const before = Atomics.load(shared, 0);
    while (Atomics.load(shared, 0) < before + 2) await new Promise((resume) => setTimeout(resume, 1));
    assertThrows(() => device.check(status), NativeError, "at 1000 ");
  } finally {
    Atomics.store(shared, 1, 1);
    await done;
    worker.terminate();
    device.close();
  }
});

Deno.test("a cache of more bytes than a number holds is refused as out of memory", () => {
  withDevice((device) => {
    // 2^65 bytes of keys, which would wrap around to none.
    const large = {
      numPages: 2 ** 24,
      numLayers: 4096,
      numQueryHeads: 4096,
      numKvHeads: 4096,
      headDim: 512,
      pageSize: 64,
    };
    const error = assertThrows(
      () => KvCache.create(device, { ...SHAPE, ...large }),
      NativeError,
      "larger than any memory",
    );
    assertEquals(error.status, Status.OutOfMemory);
  });
});

Deno.test("an operation that would write over its own page table is refused and says so", () => {
  withDevice((device) => {
    const cache = KvCache.create(device, SHAPE);
    const q = device.createTensor("f32", [1, 2, 16]);
    const table = device.createTensor("i32", [1, 8]);
    const lengths = device.upload(Int32Array.of(8), [1]);
    const call = device.native.ps_page_score(
      cache.pointer,
      0,
      3,
      0,
      q.struct,
      table.struct,
      lengths.struct,
      floatsOver(table.struct),
    );
    const message = new Uint8Array(200);
    device.native.ps_error_message(message, 200);
    assertEquals(call, Status.InvalidArgument);
    assertMatch(new TextDecoder().decode(message), /^scores overlaps indices/);
  });
});

/** The view of eight words of a buffer as float32 `[1, 1, 8]`, which a caller could pass as scores. */
function floatsOver(struct: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const copy = struct.slice();
  const view = new DataView(copy.buffer);
  [1n, 1n, 8n].forEach((size, index) => view.setBigInt64(24 + 8 * index, size, true));
  view.setInt32(48, 3, true);
  view.setInt32(52, 0, true);
  return copy;
}
