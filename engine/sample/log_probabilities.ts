// Plain loops: a vocabulary has up to 260,000 tokens, and callbacks per element take many times as long.

/** Natural logarithm of the softmax. */
export function logSoftmax(logits: Float32Array): Float64Array {
  let most = -Infinity;
  for (let index = 0; index < logits.length; index++) most = Math.max(most, logits[index] ?? 0);
  let total = 0;
  for (let index = 0; index < logits.length; index++) total += Math.exp((logits[index] ?? 0) - most);
  const shift = most + Math.log(total);
  const out = new Float64Array(logits.length);
  for (let index = 0; index < logits.length; index++) out[index] = (logits[index] ?? 0) - shift;
  return out;
}

/** Kullback-Leibler divergence of q from p, both as log-probabilities, in nats. */
export function divergence(p: Float64Array, q: Float64Array): number {
  let sum = 0;
  for (let index = 0; index < p.length; index++) {
    const value = p[index] ?? 0;
    sum += Math.exp(value) * (value - (q[index] ?? 0));
  }
  return sum;
}

/** Index of the largest number; the first one on ties. */
export function argmax(values: Float32Array | Float64Array): number {
  let best = 0;
  for (let index = 1; index < values.length; index++) if ((values[index] ?? 0) > (values[best] ?? 0)) best = index;
  return best;
}
