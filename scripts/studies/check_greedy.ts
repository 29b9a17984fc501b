/**
 * Compares the greedy text of two devices, token by token. At the first difference, the logits of both candidates show whether it is a
 * near-tie.
 *
 *     deno run -A scripts/studies/check_greedy.ts [PROMPT …] [--model DIR] [--tokens 200] [--first cpu] [--second cuda] [--text FILE]
 *
 * Prompts are arguments, and with --text the first 30,000 characters of a file.
 */
import { parseArgs } from "@std/cli/parse-args";
import { fromFileUrl } from "@std/path";
import type { DeviceChoice } from "../../engine/devices.ts";
import { Engine } from "../../engine/engine.ts";
import { print } from "../output.ts";
import { commit } from "./measure.ts";

const PROMPTS = ["It was a dark night, and the", "The captain said that", "In the year of our Lord"];
const TEXT_CHARACTERS = 30_000;

async function greedy(engine: Engine, prompt: string, maxTokens: number): Promise<number[]> {
  const ids: number[] = [];
  for await (const { id } of engine.generate(prompt, { maxTokens })) ids.push(id);
  return ids;
}

/** The logits of both candidates and of the best token after the same tokens, from a dense prefill. */
async function gap(engine: Engine, ids: readonly number[], a: number, b: number): Promise<string> {
  const { vocabSize } = engine.config;
  const logits = (await engine.logits(ids)).subarray(-vocabSize);
  const of = (id: number): string => (logits[id] ?? NaN).toFixed(4);
  return `logits ${of(a)} and ${of(b)}, the largest ${Math.max(...logits).toFixed(4)}`;
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, { string: ["model", "tokens", "first", "second", "text"] });
  const model = String(flags.model ?? fromFileUrl(new URL("../../models/default", import.meta.url)));
  const tokens = Number(flags.tokens ?? 200);
  const [first, second] = [String(flags.first ?? "cpu"), String(flags.second ?? "cuda")] as [
    DeviceChoice,
    DeviceChoice,
  ];
  const words = flags._.map(String);
  const texts = flags.text ? [Deno.readTextFileSync(String(flags.text)).slice(0, TEXT_CHARACTERS)] : [];
  await using one = await Engine.load(model, { device: first });
  await using other = await Engine.load(model, { device: second });
  print(`commit ${await commit()}, ${one.stats.device} against ${other.stats.device}, ${tokens} tokens`);
  for (const prompt of [...words.length > 0 ? words : PROMPTS, ...texts]) {
    const [a, b] = [await greedy(one, prompt, tokens), await greedy(other, prompt, tokens)];
    const length = Math.max(a.length, b.length);
    const place = Array.from({ length }, (_, index) => index).findIndex((index) => a[index] !== b[index]);
    const name = `${JSON.stringify(prompt.slice(0, 40))} (${one.tokenizer.encode(prompt).length} tokens)`;
    if (place < 0) {
      print(`${name}: the same ${a.length} tokens`);
      continue;
    }
    const before = [...one.tokenizer.encode(prompt), ...a.slice(0, place)];
    const [ours, theirs] = [a[place], b[place]];
    const ends = ours === undefined || theirs === undefined;
    print(
      `${name}: token ${place} is ${ours ?? "the end"} and ${theirs ?? "the end"}` +
        (ends ? "" : `; ${await gap(one, before, ours, theirs)}`),
    );
  }
}

if (import.meta.main) await main();
