import { join } from "@std/path";
import { ConfigFields, present } from "./config_fields.ts";
import { type JsonObject, readJsonFile, shorten } from "./json_file.ts";
import { PAGE_SIZES, SCORERS } from "../pages/page_policy.ts";
import type { SparseOptions } from "../types.ts";

/** How a model was trained to read selected pages of its context, from `sparsity.json` in its folder. */
export interface ModelSparsity {
  /** Sparse options for everything that the caller does not set. Two levels miss pages of models that were not trained. */
  readonly defaults: SparseOptions;
  /** The training method for display, such as "fine-tuned, mask soft". Empty if the file does not name it. */
  readonly method: string;
}

const TOKENS = { min: 1, max: 2 ** 31 - 1 };
const PAGES = { min: 0, max: 2 ** 31 - 1 };
const LAMBDA = { min: 0, max: 1000 };

/** Reads `sparsity.json` of a model folder, or undefined without one. @throws {PagesiftError} of kind "model" that names the field */
export async function readSparsity(folder: string): Promise<ModelSparsity | undefined> {
  const file = join(folder, "sparsity.json");
  const json = await readJsonFile(file);
  return json && parseSparsity(json, file);
}

/** Checks what `sparsity.json` contains; `file` is for messages only. Throws "model" errors that name the field. */
export function parseSparsity(json: JsonObject, file: string): ModelSparsity {
  const fields = new ConfigFields(json, file);
  const pageSize = PAGE_SIZES.find((size) => size === fields.count("page_size", TOKENS)) ??
    fields.refuse("page_size", `one of ${PAGE_SIZES.join(", ")}`);
  const budgetTokens = fields.count("budget_tokens", TOKENS);
  if (budgetTokens % pageSize !== 0) fields.refuse("budget_tokens", `a multiple of "page_size" (${pageSize})`);
  const scorer = SCORERS.find((name) => name === fields.text("scorer")) ??
    fields.refuse("scorer", `one of ${SCORERS.join(", ")}`);
  const others = {
    lambda: fields.optionalNumber("lambda", LAMBDA),
    sinkPages: fields.optionalCount("sink_pages", PAGES),
    recentPages: fields.optionalCount("recent_pages", PAGES),
    prefillBudgetTokens: fields.optionalCount("prefill_budget_tokens", TOKENS),
  };
  if ((others.prefillBudgetTokens ?? 0) % pageSize !== 0) {
    fields.refuse("prefill_budget_tokens", `a multiple of "page_size" (${pageSize})`);
  }
  const method = fields.has("trained") ? shorten(fields.object("trained").text("method", "")) : "";
  return { defaults: { budgetTokens, pageSize, scorer, levels: 2, ...present(others) }, method };
}

/** The requested options over the model's defaults. A lambda belongs to its scorer: another scorer does not inherit it. */
export function withModelDefaults(defaults: SparseOptions, asked: SparseOptions): SparseOptions {
  const { lambda, ...others } = { ...defaults, ...asked };
  const keeps = asked.lambda !== undefined || others.scorer === defaults.scorer;
  return { ...others, ...keeps && lambda !== undefined && { lambda } };
}
