/** A whole number with thousands separated, as in `41,203`. */
export function formatCount(count: number): string {
  return count.toLocaleString("en-US");
}

/** A number with one digit after the point. */
export function formatTenths(value: number): string {
  return value.toLocaleString("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
}

/** Tokens per second, or a dash without a measured time. */
export function formatRate(tokens: number, seconds: number): string {
  return seconds > 0 && tokens > 0 ? `${formatTenths(tokens / seconds)} tokens/s` : "- tokens/s";
}

/** A duration such as `0.42 s`, `12.3 s` or `2 min 05 s`. */
export function formatSeconds(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
}

/** A count and its noun, as in `1 token` or `2 tokens`. */
export function plural(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? "" : "s"}`;
}
