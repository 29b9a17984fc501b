import type { Numbers } from "./numbers.ts";

export interface Routing {
  experts: number[];
  weights: number[];
}

/** The k largest of the softmax of each row, largest first, equal ones to the lower index; `normalize`: scaled to sum to 1. */
export function routeExperts(logits: Numbers, numExperts: number, k: number, normalize: boolean): Routing {
  const routing: Routing = { experts: [], weights: [] };
  for (let first = 0; first < logits.length; first += numExperts) {
    const row = Array.from({ length: numExperts }, (_, e) => logits[first + e]!);
    const powers = row.map((logit) => Math.exp(logit - Math.max(...row)));
    const chosen = row.map((_, e) => e).sort((a, b) => row[b]! - row[a]! || a - b).slice(0, k);
    const of = (normalize ? chosen : row.map((_, e) => e)).reduce((sum, e) => sum + powers[e]!, 0);
    routing.experts.push(...chosen);
    routing.weights.push(...chosen.map((e) => powers[e]! / of));
  }
  return routing;
}
