import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { NativeError, Status } from "../../ffi/errors.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import { liveHandles } from "../../ffi/library.ts";
import { matmul } from "../../ffi/ops.ts";
import type { CacheShape } from "../../ffi/structs.ts";
import { openDevice, settle } from "../support/device.ts";

const SHAPE: CacheShape = {
  ...{ numPages: 4, maxPagesPerSequence: 4, numLayers: 1, numQueryHeads: 2, numKvHeads: 1, headDim: 16, pageSize: 8 },
  ...{ dtype: "f32", statistics: {}, maxSequences: 1 },
};

function refusal(call: () => unknown): NativeError {
  const error = assertThrows(call, NativeError);
  assertMatch(error.message, /^[^\n]+$/);
  return error;
}

Deno.test("Device.close closes its buffers and caches", () => {
  const device = openDevice();
  const buffer = device.createBuffer(64);
  const cache = KvCache.create(device, SHAPE);
  device.close();
  assert(buffer.closed && cache.closed);
  assertEquals(liveHandles(), 0);
});

Deno.test("Device.close may be called twice", () => {
  const device = openDevice();
  device.close();
  device.close();
  assertEquals(liveHandles(), 0);
});

Deno.test("Tensor of a closed buffer throws instead of reaching freed memory", () => {
  using device = openDevice();
  const tensor = device.createTensor("f32", [4]);
  tensor.buffer.close();
  assertThrows(() => tensor.struct, Error, "closed");
});

Deno.test("Device.createBuffer of more than the memory fails with a status", () => {
  using device = openDevice();
  assertEquals(refusal(() => device.createBuffer(2 ** 52)).status, Status.OutOfMemory);
});

Deno.test("DeviceBuffer.write past the end is refused and changes nothing", () => {
  using device = openDevice();
  const tensor = device.createTensor("f32", [2]);
  assertEquals(refusal(() => tensor.buffer.write(new Float32Array([1, 2, 3]))).status, Status.InvalidArgument);
  assertEquals([...tensor.readFloats()], [0, 0]);
});

Deno.test("matmul refuses shapes that do not meet, naming both", () => {
  using device = openDevice();
  const [x, weight, out] = [[1, 3], [2, 4], [1, 2]].map((shape) => device.createTensor("f32", shape));
  assert(x && weight && out);
  assertMatch(
    refusal(() => matmul(device, x, weight, undefined, out)).message,
    /x has shape \[1, 3\].*\[any, 4\]/,
  );
});

Deno.test("matmul refuses a tensor of another device", () => {
  using device = openDevice();
  using other = openDevice();
  const [weight, out] = [[2, 3], [1, 2]].map((shape) => device.createTensor("f32", shape));
  assert(weight && out);
  assertMatch(
    refusal(() => matmul(device, other.createTensor("f32", [1, 3]), weight, undefined, out)).message,
    /another device/,
  );
});

Deno.test("KvCache.append refuses a slot outside the pool", () => {
  using device = openDevice();
  const cache = KvCache.create(device, SHAPE);
  const k = device.createTensor("f32", [1, 1, 16]);
  const slots = device.upload(Int32Array.of(32), [1]);
  const append = (): void => {
    cache.append(0, k, k, slots);
    settle(device);
  };
  assertMatch(refusal(append).message, /slots\[0\] is 32.*0 to 31/);
});

Deno.test("Device serves on after it refused a slot, and the cache is as it was", () => {
  using device = openDevice();
  const cache = KvCache.create(device, SHAPE);
  const k = device.upload(new Float32Array(2 * 16).fill(3), [2, 1, 16]);
  refusal(() => {
    cache.append(0, k, k, device.upload(Int32Array.of(-1, 99), [2]));
    settle(device);
  });
  assertEquals(new Set(cache.readPage(0, 0, "keys")), new Set([0]));
  cache.append(0, k, k, device.upload(Int32Array.of(0, 1), [2]));
  assertEquals(cache.readPage(0, 0, "keys").filter((x) => x === 3).length, 32);
});

Deno.test("KvCache.create refuses a page size that no kernel has", () => {
  using device = openDevice();
  assertMatch(
    refusal(() => KvCache.create(device, { ...SHAPE, pageSize: 12 })).message,
    /Page size 12 .*8, 16, 32 or 64/,
  );
});

Deno.test("Device leaves no handle behind after 1,000 buffers", () => {
  using device = openDevice();
  const before = liveHandles();
  for (let count = 0; count < 1000; count++) device.createBuffer(64).close();
  assertEquals(liveHandles(), before);
});

Deno.test("Device.open names a missing library and the remedy", async () => {
  const url = new URL("../../ffi/device.ts", import.meta.url).href;
  const code = `import { Device } from ${
    JSON.stringify(url)
  }; try { Device.open(); } catch (error) { console.log(error.message); }`;
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--config", new URL("../../deno.json", import.meta.url).pathname, code],
    env: { PAGESIFT_LIBRARY: "/nowhere/libpagesift_cpu.so" },
    stderr: "null",
  }).output();
  assertMatch(new TextDecoder().decode(stdout), /"\/nowhere\/libpagesift_cpu.so" is missing; run "deno task build"/);
});
