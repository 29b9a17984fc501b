/** Work that is recorded once and replayed with one call. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import type { Device } from "../../ffi/device.ts";
import { NativeError, Status } from "../../ffi/errors.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import { liveHandles } from "../../ffi/library.ts";
import { add } from "../../ffi/ops.ts";
import type { Tensor } from "../../ffi/tensor.ts";
import { DEVICE_KIND, openDevice, withDevice } from "../support/device.ts";
import { cacheShape } from "../support/paged.ts";

/** A test of what only the CUDA build does. */
function recordTest(name: string, body: (device: Device) => void): void {
  Deno.test({ name, ignore: DEVICE_KIND !== "cuda", fn: () => withDevice(body) });
}

/** `[1, 2]` and `[10, 20]`. */
function makePair(device: Device): { x: Tensor; y: Tensor } {
  return {
    x: device.upload(new Float32Array([1, 2]), [1, 2]),
    y: device.upload(new Float32Array([10, 20]), [1, 2]),
  };
}

Deno.test({
  name: "Device.record is refused on the CPU, which runs on",
  ignore: DEVICE_KIND !== "cpu",
  fn: () =>
    withDevice((device) => {
      const { x, y } = makePair(device);
      let ran = false;
      const error = assertThrows(() => {
        device.record(() => {
          ran = true;
        });
      }, NativeError);
      assertEquals([error.status, ran, device.describe().records], [Status.Unsupported, false, false]);
      assertMatch(error.message, /cannot record/);
      add(device, x, y);
      assertEquals([...x.readFloats()], [11, 22]);
    }),
});

recordTest("Device.record runs nothing, and Graph.launch all of it, as often as asked", (device) => {
  const { x, y } = makePair(device);
  const graph = device.record(() => {
    add(device, x, y);
    add(device, x, y);
  });
  assertEquals([...x.readFloats()], [1, 2]);
  graph.launch();
  assertEquals([...x.readFloats()], [21, 42]);
  graph.launch();
  graph.launch();
  assertEquals([...x.readFloats()], [61, 122]);
});

recordTest("Graph.launch reads the numbers that lie in the buffers then", (device) => {
  const { x, y } = makePair(device);
  const graph = device.record(() => add(device, x, y));
  y.write(new Float32Array([100, 200]));
  graph.launch();
  y.write(new Float32Array([1000, 2000])); // behind the launch, whatever the device has done by now
  graph.launch();
  assertEquals([...x.readFloats()], [1101, 2202]);
});

recordTest("Device.record throws what the work threw, and the device serves on", (device) => {
  const { x, y } = makePair(device);
  const before = liveHandles();
  for (const begins of [false, true]) {
    const work = (): void => {
      if (begins) add(device, x, y);
      throw new RangeError("Enough");
    };
    assertThrows(() => device.record(work), RangeError, "Enough");
  }
  assertEquals([liveHandles(), ...x.readFloats()], [before, 1, 2]);
  add(device, x, y);
  device.record(() => add(device, x, y)).launch();
  assertEquals([...x.readFloats()], [21, 42]);
});

recordTest("Device.record refuses calls that read, copy or allocate, and records on", (device) => {
  const { x, y } = makePair(device);
  const cache = KvCache.create(
    device,
    cacheShape({ dtype: "f32", pageSize: 8, numQueryHeads: 1, numKvHeads: 1, headDim: 16 }),
  );
  const errors: NativeError[] = [];
  const graph = device.record(() => {
    const refused: (() => unknown)[] = [
      () => x.readFloats(),
      () => x.write(new Float32Array([5, 5])),
      () => device.createBuffer(64),
      () => x.buffer.scan(),
      () => cache.counters(),
      () => cache.readPage(0, 0, "keys"),
      () => device.record(() => {}),
    ];
    for (const call of refused) errors.push(assertThrows(call, NativeError));
    add(device, x, y);
  });
  assertEquals(errors.map(({ status }) => status), errors.map(() => Status.InvalidArgument));
  for (const { message } of errors) assertMatch(message, /The device is recording a graph; end it first/);
  graph.launch();
  assertEquals([...x.readFloats()], [11, 22]);
});

recordTest("Device.record of a call with wrong shapes throws, and the device serves on", (device) => {
  const { x, y } = makePair(device);
  const wide = device.createTensor("f32", [1, 3]);
  const error = assertThrows(() => device.record(() => add(device, x, wide)), NativeError);
  assertEquals(error.status, Status.InvalidArgument);
  add(device, x, y);
  assertEquals([...x.readFloats()], [11, 22]);
});

recordTest("Graph.launch is refused while the device records", (device) => {
  const { x, y } = makePair(device);
  const graph = device.record(() => add(device, x, y));
  device.record(() => {
    assertThrows(() => graph.launch(), NativeError);
    add(device, x, y);
  });
  graph.launch();
  assertEquals([...x.readFloats()], [11, 22]);
});

recordTest("Graph throws once closed, and closes twice without harm", (device) => {
  const { x, y } = makePair(device);
  const before = liveHandles();
  const graph = device.record(() => add(device, x, y));
  assertEquals(liveHandles(), before + 1);
  graph.close();
  graph.close();
  assertEquals(liveHandles(), before);
  assertThrows(() => graph.launch(), Error, "closed");
});

Deno.test({
  name: "Device.close closes its graphs",
  ignore: DEVICE_KIND !== "cuda",
  fn: () => {
    const device = openDevice();
    const { x, y } = makePair(device);
    const graph = device.record(() => add(device, x, y));
    graph.launch();
    device.close();
    assert(graph.closed);
    assertEquals(liveHandles(), 0);
  },
});
