import { assertEquals } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { routeExperts } from "../../ffi/ops.ts";
import { routeExperts as reference, type Routing } from "../reference/route_experts.ts";
import { normals } from "../support/cases.ts";
import { assertNumbersClose } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";

function route(
  device: Device,
  logits: Float32Array<ArrayBuffer>,
  experts: number,
  k: number,
  normalize: boolean,
): Routing {
  const tokens = logits.length / experts;
  const [chosen, weights] = [device.createTensor("i32", [tokens, k]), device.createTensor("f32", [tokens, k])];
  routeExperts(device, device.upload(logits, [tokens, experts]), normalize, chosen, weights);
  return { experts: Array.from(chosen.readInts()), weights: Array.from(weights.readFloats()) };
}

for (const normalize of [true, false]) {
  for (const [tokens, experts, k] of [[1, 1, 1], [3, 8, 2], [5, 8, 8], [700, 60, 4], [9, 128, 8]] as const) {
    deviceTest(
      `routeExperts takes ${k} of ${experts} for ${tokens} tokens, ${normalize ? "" : "not "}normalized`,
      (device) => {
        const logits = normals(new Random(experts), tokens * experts, 3);
        const found = route(device, logits, experts, k, normalize);
        const wanted = reference(logits, experts, k, normalize);
        assertEquals(found.experts, wanted.experts);
        assertNumbersClose(found.weights, wanted.weights, [tokens, k]);
      },
    );
  }
}

deviceTest("routeExperts gives equal logits to the lower expert", (device) => {
  const found = route(device, new Float32Array(7).fill(2), 7, 3, true);
  assertEquals(found.experts, [0, 1, 2]);
});

deviceTest("routeExperts stays finite with logits far above what e^x can hold", (device) => {
  const logits = Float32Array.of(-1000, 900, 0, 899);
  const wanted = reference(logits, 4, 2, false);
  const found = route(device, logits, 4, 2, false);
  assertEquals(found.experts, wanted.experts);
  assertNumbersClose(found.weights, wanted.weights, [2]);
});

for (const place of [0, 3, 6]) {
  deviceTest(`routeExperts shows a NaN at logit ${place} in the weights, and names experts that exist`, (device) => {
    const logits = normals(new Random(5), 7);
    logits[place] = NaN;
    const found = route(device, logits, 7, 3, true);
    assertEquals(found.weights.some(Number.isNaN), true);
    assertEquals(new Set(found.experts).size, 3);
  });
}
