/** `CacheShape.attentionScale`: every kind of attention multiplies by it. Twice the scale is twice the queries, bit for bit. */
import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { pageMass } from "../../ffi/page_mass.ts";
import { normals } from "../support/cases.ts";
import { assertSameBits } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { buildPaged, type Paged, type PagedShape, randomSequence } from "../support/paged.ts";
import { attend, attendPrefill, attendSparse } from "../support/paged_ops.ts";

const SHAPE: PagedShape = { dtype: "bf16", pageSize: 8, numQueryHeads: 4, numKvHeads: 2, headDim: 64 };
const [TOKENS, DEFAULT_SCALE] = [300, 1 / 8];

type Numbers = Float32Array<ArrayBuffer>;

function build(device: Device, attentionScale?: number): Paged {
  const random = new Random(1);
  const parts = [randomSequence(random, SHAPE, TOKENS)];
  return buildPaged(device, SHAPE, parts, random, attentionScale === undefined ? {} : { attentionScale });
}

function mass({ device, cache, sequences }: Paged, q: Numbers): Numbers {
  const columns = cache.shape.maxPagesPerSequence;
  const out = device.createTensor("f32", [1, SHAPE.numQueryHeads, columns]);
  pageMass(cache, 0, device.upload(q, [1, SHAPE.numQueryHeads, SHAPE.headDim]), sequences, out);
  return out.readFloats();
}

const KINDS: Record<string, (paged: Paged, q: Numbers) => Numbers> = {
  attend: (paged, q) => attend(paged, q),
  attendSparse: (paged, q) => attendSparse(paged, q, { k: 10 }).out,
  attendPrefill: (paged, q) => attendPrefill(paged, q, TOKENS - 1),
  pageMass: mass,
};

for (const [name, run] of Object.entries(KINDS)) {
  deviceTest(`${name} multiplies by the scale of its cache`, (device) => {
    const q = normals(new Random(2), SHAPE.numQueryHeads * SHAPE.headDim);
    assertSameBits(run(build(device, 2 * DEFAULT_SCALE), q), run(build(device), q.map((number) => 2 * number)));
  });
}
