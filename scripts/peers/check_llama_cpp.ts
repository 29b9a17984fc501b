/**
 * Compares llama.cpp with ours on the same weights: the ids of a text, the logits after each of the next tokens, and
 * greedy text. Keys and values are rounded differently (ours to the dtype of the weights), so logits differ a little.
 *
 *     deno run -A scripts/peers/check_llama_cpp.ts [--model DIR] [--gguf FILE] [--prompts 2048] [--tokens 64] [--variants f32:off,f16:on,bf16:on]
 *       [--text FILE] [--threads N] [--widen]
 *
 * llama.cpp rounds the inputs of bf16 and f16 matrix products to 16 bits; ours does not. --widen gives it the same weights in f32.
 */
import { Engine } from "../../engine/engine.ts";
import { log, print } from "../output.ts";
import { openSequence } from "../studies/measure.ts";
import { readText, repeatedIds } from "./arms.ts";
import { LlamaCpp } from "./llama_cpp/client.ts";
import { BATCH_TOKENS, ggufFor, type PeerOptions, readOptions, runScript } from "./options.ts";

/** Our path: the greedy ids after a prompt, and the logits of each choice. */
interface Path {
  ids: number[];
  logits: Float32Array[];
}

function argmax(values: Float32Array): number {
  return values.reduce((best, value, index) => value > (values[best] ?? -Infinity) ? index : best, 0);
}

/** Greedy dense decoding after a prompt. */
export async function ourPath(engine: Engine, prompt: readonly number[], tokens: number): Promise<Path> {
  const { session, sequence } = openSequence(engine, prompt.length + tokens);
  using _session = session;
  const policy = engine.policy({ mode: "off", pageSize: session.policy.pageSize });
  await session.prefill(sequence, prompt.slice(0, -1));
  const path: Path = { ids: [], logits: [] };
  let id = prompt.at(-1) ?? 0;
  for (let count = 0; count < tokens; count++) {
    const logits = session.step([sequence], [id], policy).logits.readFloats();
    id = argmax(logits);
    path.ids.push(id);
    path.logits.push(logits);
  }
  return path;
}

/** How much llama.cpp differs from our path. */
export interface Agreement {
  /** Steps at which its most likely id after our previous ids is ours. */
  sameChoices: number;
  /** Largest margin by which ours preferred its own id if the choices differ: small at a near-tie. */
  margin: number;
  /** Ids of its own greedy text before the first difference. */
  sameText: number;
  /** Largest difference of a logit. */
  largest: number;
  /** Root mean square of all differences. */
  typical: number;
}

/** Follows our path, then decodes on its own. */
export async function agreementOf(
  peer: LlamaCpp,
  id: string,
  prompt: readonly number[],
  path: Path,
): Promise<Agreement> {
  let [sameChoices, margin, largest, squares, count] = [0, 0, 0, 0, 0];
  for (const [step, ours] of path.logits.entries()) {
    const theirs = await (step === 0
      ? peer.logits(id, 0, prompt)
      : peer.logits(id, prompt.length + step - 1, path.ids.slice(step - 1, step)));
    const [chosen, wanted] = [argmax(theirs), path.ids[step] ?? 0];
    if (chosen === wanted) {
      sameChoices++;
    } else margin = Math.max(margin, (ours[wanted] ?? NaN) - (ours[chosen] ?? NaN));
    for (const [index, value] of ours.entries()) {
      const difference = Math.abs(value - (theirs[index] ?? NaN));
      largest = difference <= largest ? largest : difference; // NaN propagates
      squares += difference ** 2;
      count++;
    }
  }
  const typical = Math.sqrt(squares / count);
  return { sameChoices, margin, sameText: await sameText(peer, id, prompt, path), largest, typical };
}

async function sameText(peer: LlamaCpp, id: string, prompt: readonly number[], { ids }: Path): Promise<number> {
  let last = argmax(await peer.logits(id, 0, prompt));
  for (const [step, wanted] of ids.entries()) {
    if (last !== wanted) return step;
    last = argmax(await peer.logits(id, prompt.length + step, [last]));
  }
  return ids.length;
}

async function compareTokens(peer: LlamaCpp, engine: Engine, options: PeerOptions): Promise<void> {
  const text = readText(options.text).slice(0, 20_000);
  const [ours, theirs] = [engine.tokenizer.encode(text), await peer.tokenize(text)];
  const parts = ours.findIndex((id, index) => id !== theirs[index]);
  const same = parts < 0 && ours.length === theirs.length;
  print(
    `tokenizers: ${text.length} characters, ${same ? `the same ${ours.length} ids` : `they differ from id ${parts}`}`,
  );
}

async function main(): Promise<void> {
  const options = readOptions(Deno.args, { depths: "", variants: "f32:off,f16:on,bf16:on" });
  await using engine = await Engine.load(options.model, { device: options.device, threads: options.threads });
  await using peer = await LlamaCpp.start(await ggufFor(options));
  const prompt = repeatedIds(engine, options.text, options.prompts[0] ?? 0);
  print(
    `${peer.program}; prompt of ${prompt.length} tokens, ${options.decodeTokens} more; our KV cache is ${engine.kvType}`,
  );
  await compareTokens(peer, engine, options).catch((error) => log(`tokenizers: ${error.message}`));
  const path = await ourPath(engine, prompt, options.decodeTokens);
  const sorted = (path.logits[0] ?? new Float32Array()).toSorted();
  print(`our first logits lie between ${sorted.at(0)?.toFixed(1)} and ${sorted.at(-1)?.toFixed(1)}`);
  for (const { kv, flash } of options.variants) {
    const name = `${kv.toLowerCase()}, flash attention ${flash ? "on" : "off"}`;
    const open = { contextTokens: prompt.length + options.decodeTokens + 1, batchTokens: BATCH_TOKENS };
    await peer.open(name, { ...open, threads: options.threads, kv, flash });
    const { sameChoices, margin, sameText, largest, typical } = await agreementOf(peer, name, prompt, path);
    const ties = sameChoices < path.ids.length ? ` (our margin at the others is at most ${margin.toFixed(4)})` : "";
    const choices = `${sameChoices} of ${path.ids.length} choices${ties}, greedy text the same for ${sameText}`;
    print(`KV ${name}: ${choices}; largest difference of a logit ${largest.toFixed(4)}, typical ${typical.toFixed(4)}`);
  }
}

if (import.meta.main) await runScript(main);
