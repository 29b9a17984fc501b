/** The models of tests/fixtures/hf against logits and greedy tokens that the transformers library computed. */
import { assert, assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import type { Engine } from "../../engine/engine.ts";
import { LoadedModel } from "../../engine/loaded_model.ts";
import { Session } from "../../engine/session.ts";
import { readSafetensorsHeader } from "../../engine/folder/safetensors.ts";
import { readTensor } from "../../engine/folder/tensor_data.ts";
import { liveHandles } from "../../ffi/library.ts";
import { fixtureFolder, loadedOf, loadFixture, loadFolder, ModelCopy } from "../support/fixture_model.ts";
import { headerText, hostileModel } from "../support/hostile_model.ts";

const FOLDER = fromFileUrl(new URL("../fixtures/hf", import.meta.url));

/** The greedy tokens of this fixture follow its prompt without the first id (transformers gives them for nothing else). */
const GREEDY_WITHOUT_FIRST_ID = "smollm3-f32";
/**
 * The attention of this fixture is so sharp that a cache in bf16 moves its logits by more than the tolerance. They are held to it with a
 * cache in f32, and the default cache to a bound of its own.
 */
const SHARP = "gemma3-bf16";
/** Root mean square that the logits of {@link SHARP} move by in transformers, from f32 to bf16 (PyTorch SDPA on the CPU). */
const SHARP_IN_BF16 = 0.18;

interface Reference {
  inputIds: number[];
  /** All positions of the prompt where the file lists none. */
  positions: Int32Array | Float32Array;
  /** `[positions, vocabSize]` */
  logits: Int32Array | Float32Array;
  greedy: number[];
  /** The prompt of `greedy`. */
  greedyPrompt: number[];
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
    greedyPrompt: original.input_ids.slice(name === GREEDY_WITHOUT_FIRST_ID ? 1 : 0),
    tolerance: original.dtype === "torch.float32" ? 2e-3 : 5e-2,
  };
}

/** Of every logit that the reference has. */
function differences(logits: Float32Array, { positions, logits: wanted }: Reference): Float64Array {
  const vocabSize = wanted.length / positions.length;
  const all = new Float64Array(wanted.length);
  positions.forEach((position, row) => {
    for (let token = 0; token < vocabSize; token++) {
      const index = row * vocabSize + token;
      all[index] = Math.abs((logits[position * vocabSize + token] ?? NaN) - (wanted[index] ?? NaN));
    }
  });
  return all;
}

/** NaN where one of them is. */
function largest(numbers: Float64Array): number {
  return numbers.reduce((worst, number) => number <= worst ? worst : number, 0);
}

async function largestDifference(engine: Engine, reference: Reference): Promise<number> {
  return largest(differences(await engine.logits(reference.inputIds), reference));
}

/** `Engine.logits` with keys and values in f32. */
async function logitsOfExactCache(engine: Engine, ids: readonly number[]): Promise<Float32Array> {
  const { device, config, model: { weights } } = loadedOf(engine);
  const loaded = LoadedModel.create(device, config, weights, { dtype: "f32" });
  const need = { totalTokens: ids.length, longestTokens: ids.length, maxSequences: 1 };
  using session = Session.open(loaded, engine.policy({ mode: "off" }), need);
  const out = new Float32Array(ids.length * config.vocabSize);
  const { maxLogitRows } = loaded.model;
  await session.prefill(session.openSequence(), ids, {
    onChunk: (hidden, done) => {
      const count = hidden.shape[0] ?? 0;
      for (let first = 0; first < count; first += maxLogitRows) {
        const rows = hidden.rows(first, Math.min(maxLogitRows, count - first));
        out.set(loaded.model.logits(rows).readFloats(), (done - count + first) * config.vocabSize);
      }
    },
  });
  return out;
}

/** How many of the reference's greedy tokens its top two tell apart by more than the tolerance, as far as an EOS. */
async function countSureTokens(engine: Engine, reference: Reference): Promise<number> {
  const { vocabSize, eosTokenIds } = engine.config;
  const logits = await engine.logits([...reference.greedyPrompt, ...reference.greedy]);
  for (const [index, token] of reference.greedy.entries()) {
    const start = (reference.greedyPrompt.length - 1 + index) * vocabSize;
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
      const piece of engine.generate(reference.greedyPrompt, {
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
  if (name !== SHARP) testLogits(name);
  testGreedy(name);
}

Deno.test(`The logits of ${SHARP} agree with the reference where keys and values are stored in f32`, async () => {
  const reference = await readReference(SHARP);
  await using engine = await loadFixture(SHARP);
  const worst = largest(differences(await logitsOfExactCache(engine, reference.inputIds), reference));
  // The CUDA build rounds the activations of a prompt to the weights' bf16.
  assert(worst <= (engine.describeDevice().backend === "cpu" ? 2e-3 : 5e-2), `largest difference ${worst}`);
});

Deno.test(`Engine.logits of ${SHARP} is closer to the reference than transformers in bf16`, async () => {
  const reference = await readReference(SHARP);
  await using engine = await loadFixture(SHARP);
  const errors = differences(await engine.logits(reference.inputIds), reference);
  const rms = Math.sqrt(errors.reduce((sum, error) => sum + error * error, 0) / errors.length);
  assert(rms <= SHARP_IN_BF16 / 2, `root mean square ${rms}`);
});

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
