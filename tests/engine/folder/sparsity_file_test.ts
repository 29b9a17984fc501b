import { assertEquals, assertRejects } from "@std/assert";
import { PagesiftError } from "../../../engine/errors.ts";
import { type ModelSparsity, readSparsity, withModelDefaults } from "../../../engine/folder/sparsity_file.ts";
import { withFiles } from "../../support/folders.ts";

const TRAINED = { budget_tokens: 128, page_size: 16, scorer: "unique", lambda: 0.75 };

async function read(content: unknown): Promise<ModelSparsity | undefined> {
  return await readIn({ "sparsity.json": JSON.stringify(content) });
}

async function readIn(files: Record<string, string>): Promise<ModelSparsity | undefined> {
  let found: ModelSparsity | undefined;
  await withFiles(files, async (folder) => {
    found = await readSparsity(folder);
  });
  return found;
}

Deno.test("readSparsity reads what a fine-tuning wrote", async () => {
  const trained = { method: "fine-tuned, mask soft", steps: 4 };
  assertEquals(await read({ ...TRAINED, sink_pages: 0, recent_pages: 3, trained }), {
    defaults: {
      ...{ budgetTokens: 128, pageSize: 16, levels: 2, scorer: "unique", lambda: 0.75, sinkPages: 0, recentPages: 3 },
    },
    method: "fine-tuned, mask soft",
  });
});

Deno.test("readSparsity reads the budget of prompts", async () => {
  const found = await read({ ...TRAINED, prefill_budget_tokens: 1024 });
  assertEquals(found?.defaults.prefillBudgetTokens, 1024);
});

Deno.test("readSparsity tells a folder without the file", async () => {
  assertEquals(await readIn({ "config.json": "{}" }), undefined);
});

Deno.test("readSparsity names what is wrong in one line of kind model", async () => {
  const wrong: [Record<string, unknown>, string][] = [
    [{ budget_tokens: 100 }, '"budget_tokens" of'],
    [{ prefill_budget_tokens: 100 }, '"prefill_budget_tokens" of'],
    [{ page_size: 12 }, "one of 8, 16, 32, 64, found 12"],
    [{ scorer: "best" }, "unique, diag, quest, mean"],
    [{ lambda: -1 }, '"lambda" of'],
    [{ budget_tokens: undefined }, "found nothing"],
    [{ trained: "well" }, '"trained" of'],
  ];
  for (const [change, part] of wrong) {
    const error = await assertRejects(() => read({ ...TRAINED, ...change }), PagesiftError, part);
    assertEquals([error.kind, error.message.includes("\n")], ["model", false]);
  }
});

Deno.test("withModelDefaults lets what was asked for win, and keeps a lambda with its scorer", () => {
  const defaults = { budgetTokens: 128, scorer: "unique", lambda: 0.75 } as const;
  assertEquals(withModelDefaults(defaults, { budgetTokens: 64 }), { budgetTokens: 64, scorer: "unique", lambda: 0.75 });
  assertEquals(withModelDefaults(defaults, { scorer: "diag" }), { budgetTokens: 128, scorer: "diag" });
  assertEquals(withModelDefaults(defaults, { scorer: "diag", lambda: 2 }), {
    budgetTokens: 128,
    scorer: "diag",
    lambda: 2,
  });
});
