import { format } from "@std/fmt/bytes";
import type { MemoryPlan } from "../../engine/memory_plan.ts";
import type { PlanReport } from "../../bench/plan_report.ts";
import { formatCount, formatTenths, plural } from "../../engine/text/format.ts";

const LABELS: readonly (readonly [part: keyof MemoryPlan, label: string])[] = [
  ["weights", "weights"],
  ["kv", "KV cache"],
  ["statistics", "page statistics"],
  ["scratch", "attention scratch"],
  ["activations", "activations"],
  ["inputs", "step inputs"],
  ["total", "total"],
];

/** The plan for people. */
export function planText(report: PlanReport): string {
  const { device, bytes, step_bytes: step, speed } = report;
  const cells = LABELS.map(([part, label]) => [label, sizeText(bytes[part]), formatCount(bytes[part])] as const);
  const [labels, sizes, counts] = [0, 1, 2].map((column) =>
    Math.max(...cells.map((row) => (row[column] ?? "").length))
  );
  const table = cells.map(([label, size, count]) =>
    `  ${label.padEnd(labels ?? 0)}  ${size.padStart(sizes ?? 0)}  ${count.padStart(counts ?? 0)} bytes`
  );
  const lines: [label: string, text: string][] = [
    ["model", report.model],
    ["device", deviceText(device)],
    [
      "run",
      `${plural(report.sequences, "sequence")} of ${plural(report.context_tokens, "token")}, keys and values in ` +
      `${report.kv_type}, ${report.page_tokens} tokens per page`,
    ],
    ["memory", report.fits ? "fits" : `does not fit: ${sizeText(bytes.total - device.available_bytes)} too much`],
  ];
  const after: [label: string, text: string][] = [
    ["largest", `${largestText(report)}`],
    ["step", `reads ${sizeText(step.dense)} dense${sparseText(report)}`],
    ...speed ? [["speed", speedText(speed)] as [string, string]] : [],
  ];
  const labelled = (all: [string, string][]): string[] => all.map(([label, text]) => `${label.padEnd(9)}${text}`);
  return [...labelled(lines), ...table, ...labelled(after)].join("\n") + "\n";
}

function deviceText({ backend, name, count, available_bytes: available }: PlanReport["device"]): string {
  const free = `${sizeText(available)} free`;
  return count === 1
    ? `${backend} (${name}), ${free}`
    : `${backend} (${name}, ${count} devices), bytes of each, ${free}`;
}

function largestText({ largest_context_tokens: context, largest_batch: batch, ...report }: PlanReport): string {
  const sequences = plural(report.sequences, "sequence");
  const longest = context === 0 ? `no context fits with ${sequences}` : `${plural(context, "token")} with ${sequences}`;
  const most = batch === 0
    ? `not one sequence of ${plural(report.context_tokens, "token")}`
    : `${plural(batch, "sequence")} of ${plural(report.context_tokens, "token")}`;
  return `${longest}; ${most}`;
}

function sparseText({ step_bytes: step, auto_selects_from_tokens: from, budget_tokens: budget }: PlanReport): string {
  if (step.sparse === undefined) return "; no step selects pages at this context";
  const auto = from === undefined ? "" : `; --sparse auto selects from ${plural(from, "token")} on`;
  return `, ${sizeText(step.sparse)} sparse (budget ${plural(budget, "token")})${auto}`;
}

function speedText(speed: NonNullable<PlanReport["speed"]>): string {
  const { bytes_per_second: bandwidth, dense_tokens_per_second: dense, sparse_tokens_per_second: sparse } = speed;
  const selecting = sparse === undefined ? "" : `, ${formatTenths(sparse)} sparse`;
  return `about ${formatTenths(dense)} tokens/s dense${selecting}, from ${formatTenths(bandwidth / 1e9)} GB/s measured`;
}

function sizeText(bytes: number): string {
  return format(bytes, { binary: true, maximumFractionDigits: 1 });
}
