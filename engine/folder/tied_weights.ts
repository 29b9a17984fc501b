import type { ModelConfig } from "./config.ts";
import type { CheckpointTensor } from "./checkpoint.ts";
import { openModelFile, readTensorBytes } from "./safetensors.ts";
import type { WeightPlan } from "./weight_plan.ts";

const PIECE_BYTES = 4 << 20;
/** After this many bytes the event loop gets a turn, so that Ctrl-C works. */
const TURN_BYTES = 64 << 20;

/**
 * The plan without its output projection where `config.json` ties that to the embedding and both are equal; where they differ,
 * both stay, with a warning. Reads the tensors as far as they are equal.
 *
 * @throws {PagesiftError} of kind "model", or the signal's reason when aborted
 */
export async function tieEqualWeights(
  config: ModelConfig,
  plan: WeightPlan,
  signal?: AbortSignal,
): Promise<WeightPlan> {
  const [head, embedding] = ["logits.weight", "embedding.weight"].map((name) => plan.tensors.get(name)?.parts[0]);
  if (!config.tieWordEmbeddings || !head || !embedding) return plan;
  if (await areEqual(head, embedding, signal)) {
    const tensors = new Map(plan.tensors);
    tensors.delete("logits.weight");
    return { ...plan, tensors };
  }
  const text = `config.json ties "${head.name}" to "${embedding.name}", but they differ; both are used`;
  return { ...plan, notices: [...plan.notices, { level: "warning", text }] };
}

async function areEqual(a: CheckpointTensor, b: CheckpointTensor, signal?: AbortSignal): Promise<boolean> {
  if (a.dtype !== b.dtype || a.bytes !== b.bytes) return false;
  using fileA = openModelFile(a.file);
  using fileB = openModelFile(b.file);
  const [bufferA, bufferB] = [new Uint8Array(PIECE_BYTES), new Uint8Array(PIECE_BYTES)];
  for (let offset = 0; offset < a.bytes; offset += PIECE_BYTES) {
    signal?.throwIfAborted();
    const count = Math.min(PIECE_BYTES, a.bytes - offset);
    readTensorBytes(fileA, a, offset, bufferA.subarray(0, count));
    readTensorBytes(fileB, b, offset, bufferB.subarray(0, count));
    if (!areEqualBytes(bufferA, bufferB, count)) return false;
    if ((offset + PIECE_BYTES) % TURN_BYTES === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  }
  return true;
}

/** Compares words of four bytes, then the few bytes that remain. */
function areEqualBytes(a: Uint8Array<ArrayBuffer>, b: Uint8Array<ArrayBuffer>, count: number): boolean {
  const words = Math.floor(count / 4);
  const [wordsA, wordsB] = [new Uint32Array(a.buffer, 0, words), new Uint32Array(b.buffer, 0, words)];
  for (let index = 0; index < words; index++) if (wordsA[index] !== wordsB[index]) return false;
  for (let index = 4 * words; index < count; index++) if (a[index] !== b[index]) return false;
  return true;
}
