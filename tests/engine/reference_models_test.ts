/** The models of tests/fixtures/hf against logits and greedy tokens that the transformers library computed. */
import { assert, assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import type { Engine } from "../../engine/engine.ts";
import { readSafetensorsHeader } from "../../engine/folder/safetensors.ts";
import { readTensor } from "../../engine/folder/tensor_data.ts";
import { liveHandles } from "../../ffi/library.ts";
import { fixtureFolder, loadFixture, loadFolder, ModelCopy } from "../support/fixture_model.ts";
import { headerText, hostileModel } from "../support/hostile_model.ts";

const FOLDER = fromFileUrl(new URL("../fixtures/hf", import.meta.url));

interface Reference {
  inputIds: number[];
  /** All positions of the prompt where the file lists none. */
  positions: Int32Array | Float32Array;
  /** `[positions, vocabSize]` */
  logits: Int32Array | Float32Array;
  greedy: number[];
  tolerance: number;
}

async function readReference(name: string): Promise<Reference> {
  const folder = fixtureFolder(name);
  const file = join(folder, "reference.safetensors");
  const { tensors } = await readSafetensorsHeader(file);
  const original = JSON.parse(Deno.readTextFileSync(join(folder, "reference.json")));
  return {
    inputIds: original.input_ids,
    positions: tensors.has("positions")
      ? await readTensor(file, "positions")
      : Int32Array.from(original.input_ids, (_id, position) => position),
    logits: await readTensor(file, "logits"),
    greedy: original.greedy,
    tolerance: original.dtype === "torch.float32" ? 2e-3 : 5e-2,
  };
}

async function largestDifference(engine: Engine, reference: Reference): Promise<number> {
  const { vocabSize } = engine.config;
  const logits = await engine.logits(reference.inputIds);
  let worst = 0;
  reference.positions.forEach((position, row) => {
    for (let token = 0; token < vocabSize; token++) {
      const difference = Math.abs(
        (logits[position * vocabSize + token] ?? NaN) - (reference.logits[row * vocabSize + token] ?? NaN),
      );
      if (!(difference <= worst)) worst = difference;
    }
  });
  return worst;
}

/** How many of the reference's greedy tokens its top two tell apart by more than the tolerance, as far as an EOS. */
async function countSureTokens(engine: Engine, reference: Reference): Promise<number> {
  const { vocabSize, eosTokenIds } = engine.config;
  const logits = await engine.logits([...reference.inputIds, ...reference.greedy]);
  for (const [index, token] of reference.greedy.entries()) {
    const start = (reference.inputIds.length - 1 + index) * vocabSize;
    const [second = 0, first = 0] = logits.slice(start, start + vocabSize).sort().slice(-2);
    if (first - second <= reference.tolerance) return index;
    if (eosTokenIds.includes(token)) return index + 1;
  }
  return reference.greedy.length;
}

function testLogits(name: string): void {
  Deno.test(`Engine.logits agrees with the reference of ${name}`, async () => {
    const reference = await readReference(name);
    await using engine = await loadFixture(name);
    const worst = await largestDifference(engine, reference);
    assert(worst <= reference.tolerance, `largest difference ${worst}, expected at most ${reference.tolerance}`);
  });
}

function testGreedy(name: string): void {
  Deno.test(`Engine.generate gives the greedy tokens of ${name} while the reference is sure of them`, async () => {
    const reference = await readReference(name);
    await using engine = await loadFixture(name);
    const ids: number[] = [];
    for await (
      const piece of engine.generate(reference.inputIds, {
        maxTokens: reference.greedy.length,
        sparse: { mode: "off" },
      })
    ) {
      ids.push(piece.id);
    }
    const sure = await countSureTokens(engine, reference);
    assertEquals(ids.slice(0, sure), reference.greedy.slice(0, sure));
  });
}

for (const { name } of [...Deno.readDirSync(FOLDER)].sort((a, b) => a.name.localeCompare(b.name))) {
  testLogits(name);
  testGreedy(name);
}

Deno.test("Engine.logits keeps both of two tied weights that differ, as transformers does", async () => {
  const reference = await readReference("llama-f32");
  using copy = ModelCopy.of("llama-f32").configure({ tie_word_embeddings: true });
  await using engine = await loadFolder(copy.folder);
  const worst = await largestDifference(engine, reference);
  assert(worst <= reference.tolerance, `largest difference ${worst}, expected at most ${reference.tolerance}`);
  assertEquals(engine.notices.map(({ level }) => level), ["warning"]);
});

Deno.test("Engine.logits embeds by lm_head where that is the only tied weight", async () => {
  const reference = await readReference("qwen3-qknorm-f32");
  const rename = headerText((text) => text.replace('"model.embed_tokens.weight"', '"lm_head.weight"'));
  using copy = await hostileModel("qwen3-qknorm-f32", rename);
  await using engine = await loadFolder(copy.folder);
  const worst = await largestDifference(engine, reference);
  assert(worst <= reference.tolerance, `largest difference ${worst}, expected at most ${reference.tolerance}`);
});

Deno.test("Engine leaves no native handle behind", async () => {
  {
    await using engine = await loadFixture("qwen3-qknorm-f32");
    await engine.logits([1, 2, 3]);
  }
  assertEquals(liveHandles(), 0);
});
