/** LoRA adapters: logits against the model that PyTorch merged (tests/train/test_adapter_fixture.py), and what is refused. */
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import type { Engine, EngineOptions } from "../../engine/engine.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { readAdapter, withAdapter } from "../../engine/folder/adapter.ts";
import { readNumbers, readTensor } from "../../engine/folder/tensor_data.ts";
import { mergeRows } from "../../engine/merge_adapter.ts";
import { Device } from "../../ffi/device.ts";
import { ROOT } from "../../scripts/release/native_library.ts";
import { convertGguf } from "../../scripts/peers/convert_gguf.ts";
import { fixtureFolder, loadedOf, loadFixture, loadFolder, promptIds } from "../support/fixture_model.ts";
import { runDeno } from "../support/process.ts";
import { TempFolder } from "../support/temp_folder.ts";

const ADAPTER = join(fixtureFolder(".."), "adapter");
const MODEL = "llama-f32";
const SPARSITY = { budget_tokens: 32, page_size: 8, scorer: "diag", lambda: 1.5, trained: { method: "a test" } };

/** Largest difference from the logits of the merged model. */
async function distance(engine: Engine): Promise<number> {
  const ids = Array.from(await readTensor(join(ADAPTER, "logits.safetensors"), "ids"));
  const wanted = await readTensor(join(ADAPTER, "logits.safetensors"), "logits");
  const logits = await engine.logits(ids);
  assertEquals(logits.length, wanted.length);
  return Math.max(...wanted.map((value, index) => Math.abs(value - (logits[index] ?? NaN))));
}

/** A copy of the adapter whose config or tensors a test changes. */
class AdapterCopy extends TempFolder {
  constructor() {
    super();
    for (const { name } of Deno.readDirSync(ADAPTER)) Deno.copyFileSync(join(ADAPTER, name), join(this.path, name));
    Deno.removeSync(join(this.path, "logits.safetensors"));
  }

  configure(fields: Readonly<Record<string, unknown>>): this {
    const file = join(this.path, "adapter_config.json");
    Deno.writeTextFileSync(file, JSON.stringify({ ...JSON.parse(Deno.readTextFileSync(file)), ...fields }));
    return this;
  }

  /** Replaces a text of the header by one of the same length. */
  rename(from: string, to: string): this {
    const file = join(this.path, "adapter_model.safetensors");
    const text = new TextDecoder("latin1").decode(Deno.readFileSync(file));
    assert(from.length === to.length && text.includes(from));
    Deno.writeFileSync(file, Uint8Array.from(text.replace(from, to), (character) => character.charCodeAt(0)));
    return this;
  }

  describe(): this {
    Deno.writeTextFileSync(join(this.path, "sparsity.json"), JSON.stringify(SPARSITY));
    return this;
  }
}

Deno.test("a model with an adapter has the logits of the merged model", async () => {
  await using engine = await loadFixture(MODEL, { adapter: ADAPTER });
  const worst = await distance(engine);
  assert(worst < 2e-3, `largest difference ${worst}`);
});

Deno.test("a GGUF file with an adapter has the logits of the merged model", async () => {
  using temporary = new TempFolder();
  const { path } = await convertGguf(fixtureFolder(MODEL), join(temporary.path, "model.gguf"));
  await using engine = await loadFolder(path, { adapter: ADAPTER });
  const worst = await distance(engine);
  assert(worst < 2e-3, `largest difference ${worst}`);
});

Deno.test("a quantised weight that an adapter changes becomes bf16, the numbers of its blocks plus the change", async () => {
  using temporary = new TempFolder();
  const { changes, ...adapter } = await readAdapter(ADAPTER);
  const entry = [...changes].find(([, { down }]) => down.shape[1] === 64);
  assert(entry);
  const [name, { down, up, scale }] = entry;
  const rows = up.shape[0] ?? 0;
  const file = join(temporary.path, "blocks");
  // Blocks of 32 numbers with the scale 0.5: -16 to 15, halved.
  const block = [0x00, 0x38, ...Array.from({ length: 32 }, (_, index) => (index - 16) & 255)];
  Deno.writeFileSync(file, Uint8Array.from({ length: 2 * rows * 34 }, (_, index) => block[index % 34] ?? 0));
  const base = { name, file, dtype: "Q8_0", shape: [rows, 64], offsetBytes: 0, bytes: 2 * rows * 34 };
  const tensors = withAdapter(new Map([[name, base]]), { ...adapter, changes: new Map([[name, { down, up, scale }]]) });
  const { dtype, change } = tensors.get(name) ?? {};
  assertEquals(dtype, "BF16");
  assert(change);
  using device = Device.open("cpu");
  const merged = new Float32Array(rows * 64);
  mergeRows(device, change, new Uint8Array(2 * 34 * 2 * 5), (numbers, first) => merged.set(numbers, first * 64));
  const [downs, ups] = [readNumbers(down), readNumbers(up)];
  const rank = down.shape[0] ?? 0;
  for (const [index, found] of merged.entries()) {
    const [row, column] = [Math.floor(index / 64), index % 64];
    let wanted = (column % 32 - 16) / 2;
    for (let r = 0; r < rank; r++) wanted += scale * (ups[row * rank + r] ?? NaN) * (downs[r * 64 + column] ?? NaN);
    assertAlmostEquals(found, wanted, 1e-5);
  }
});

Deno.test("--weights quantises the merged weights", async () => {
  await using engine = await loadFixture(MODEL, { adapter: ADAPTER, weights: "q8_0" });
  assertEquals(loadedOf(engine).model.weights.get("layers.0.down.weight").dtype, "q8_0");
  await using plain = await loadFixture(MODEL);
  const [worst, without] = [await distance(engine), await distance(plain)];
  assert(worst < without / 2, `largest difference ${worst}, without the adapter ${without}`);
});

Deno.test("the sparsity.json of an adapter gives the defaults", async () => {
  using adapter = new AdapterCopy().describe();
  await using engine = await loadFixture(MODEL, { adapter: adapter.path });
  const { scorer, lambda, budgetPages } = engine.policy();
  assertEquals([scorer, lambda, budgetPages, engine.sparsity?.method], ["diag", 1.5, 4, "a test"]);
});

Deno.test("a prompt that was saved without the adapter is not read with it", async () => {
  using cache = new TempFolder();
  const reused = async (options: EngineOptions): Promise<number | undefined> => {
    await using engine = await loadFixture(MODEL, { promptCache: { folder: cache.path }, ...options });
    await Array.fromAsync(engine.generate(promptIds(MODEL), { maxTokens: 1 }));
    return engine.stats.promptCache?.loadedTokens;
  };
  assertEquals([await reused({}), await reused({ adapter: ADAPTER })], [0, 0]);
  assert(await reused({ adapter: ADAPTER }) ?? 0 > 0);
});

for (
  const [what, prepare, word] of [
    ["another rank", (copy) => copy.configure({ r: 5 }), "rank 5"],
    ["another kind of adapter", (copy) => copy.configure({ peft_type: "LOHA" }), "peft_type"],
    ["weight decomposition", (copy) => copy.configure({ use_dora: true }), "use_dora"],
    ["layers saved whole", (copy) => copy.configure({ modules_to_save: ["lm_head"] }), "modules_to_save"],
    ["ranks of their own", (copy) => copy.configure({ rank_pattern: { q_proj: 8 } }), "rank_pattern"],
    ["a start that changes the base", (copy) => copy.configure({ init_lora_weights: "pissa" }), "init_lora_weights"],
    ["an unknown tensor", (copy) => copy.rename("0.mlp.up_proj.lora_A", "0.mlp.up_proj.lora_C"), "lora_C"],
    ["half a pair", (copy) => copy.rename("0.mlp.up_proj.lora_A", "9.mlp.up_proj.lora_A"), "alone"],
  ] as [string, (copy: AdapterCopy) => AdapterCopy, string][]
) {
  Deno.test(`an adapter with ${what} is refused`, async () => {
    using adapter = prepare(new AdapterCopy());
    const error = await assertRejects(() => loadFixture(MODEL, { adapter: adapter.path }), PagesiftError, word);
    assertEquals([error.kind, error.message.includes("\n")], ["model", false]);
  });
}

Deno.test("an adapter of another model is refused by the first weight that differs", async () => {
  const error = await assertRejects(
    () => loadFixture("gemma3-f32", { adapter: ADAPTER }),
    PagesiftError,
    "another model",
  );
  assertEquals(error.kind, "model");
  assertStringIncludes(error.message, "layers.0");
});

Deno.test("a folder without an adapter is refused", async () => {
  for (const folder of [fixtureFolder(MODEL), "no-such-folder"]) {
    const error = await assertRejects(() => loadFixture(MODEL, { adapter: folder }), PagesiftError, folder);
    assertEquals(error.kind, "model");
  }
});

Deno.test("generate --adapter refuses a folder without an adapter with exit code 3 and one line", async () => {
  const main = join(ROOT, "cli", "main.ts");
  const args = ["run", "-A", main, "generate", "--adapter", "no-such-folder", "--device", "cpu", "--no-stdin", "Hi"];
  const { code, stdout, stderr } = await runDeno(args);
  assertEquals([code, stdout, stderr.trim().split("\n").length], [3, "", 1], stderr);
  assertStringIncludes(stderr, "no-such-folder");
});
