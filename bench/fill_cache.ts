/** Fills a cache without a model, with keys that resemble each other within a page. */
import type { EventLoopYield } from "../engine/event_loop.ts";
import type { Sequence } from "../engine/pages/sequence.ts";
import type { Device } from "../ffi/device.ts";
import type { KvCache } from "../ffi/kv_cache.ts";
import type { Tensor } from "../ffi/tensor.ts";
import { tensorsOwnedBy } from "../engine/owned_tensors.ts";
import { randomTokens, wordsFrom } from "./random_numbers.ts";

/** Tokens per append. */
const FILL_TOKENS = 8192;

/**
 * Extends every sequence to `contextTokens` in all layers; every append uses another stretch of the same random tokens. Returns the
 * source of the keys, `[tokens, Hk, d]`.
 */
export async function fillSequences(
  device: Device,
  cache: KvCache,
  sequences: readonly Sequence[],
  contextTokens: number,
  yieldToEventLoop: EventLoopYield,
): Promise<Float32Array<ArrayBuffer>> {
  const { numKvHeads, headDim, numLayers, pageSize } = cache.shape;
  const most = Math.max(1, Math.min(FILL_TOKENS, contextTokens));
  const numTokens = Math.max(2 * most, sequences.length);
  const numbers = [1, 0].map((drift) => randomTokens(numTokens, numKvHeads * headDim, pageSize, drift));
  using owned = new DisposableStack();
  const createTensor = tensorsOwnedBy(owned, device);
  const sources = numbers.map((each) => {
    const tensor = createTensor("f32", [numTokens, numKvHeads, headDim]);
    tensor.write(each);
    return tensor;
  });
  const [keys, values] = sources as [Tensor, Tensor];
  const places = createTensor("i32", [most]);
  const next = wordsFrom(3);
  for (const sequence of sequences) {
    while (sequence.length < contextTokens) {
      const count = Math.min(most, contextTokens - sequence.length);
      places.write(sequence.extend(count));
      for (let layer = 0; layer < numLayers; layer++) {
        const first = next() % (numTokens - count + 1);
        cache.append(layer, keys.rows(first, count), values.rows(first, count), places.rows(0, count));
        await yieldToEventLoop();
      }
    }
  }
  places.buffer.read(new Uint8Array(4)); // waits, so that the sources can be freed
  return numbers[0] as Float32Array<ArrayBuffer>;
}
