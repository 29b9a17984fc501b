/** Natural logarithm of the softmax. */
export function logSoftmax(logits: Float32Array): Float64Array {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0);
  const shift = most + Math.log(total);
  return Float64Array.from(logits, (logit) => logit - shift);
}

/** Kullback-Leibler divergence of q from p, both as log-probabilities, in nats. */
export function divergence(p: Float64Array, q: Float64Array): number {
  return p.reduce((sum, value, index) => sum + Math.exp(value) * (value - (q[index] ?? 0)), 0);
}

/** Index of the largest number; the first one on ties. */
export function argmax(values: Float32Array | Float64Array): number {
  let best = 0;
  for (let index = 1; index < values.length; index++) if ((values[index] ?? 0) > (values[best] ?? 0)) best = index;
  return best;
}
