/**
 * Measures decode and prefill speed of llama.cpp, as rows for `pagesift bench generate --peers FILE` (docs/bench.md).
 *
 *     deno run -A scripts/peers/measure_llama_cpp.ts [--model DIR] [--gguf FILE] [--device cpu|cuda] [--threads N]
 *       [--depths 4096,8192,16384,32640] [--tokens 32] [--prompts 512] [--repeats 7] [--variants f16:on,f16:off] [--all] [--text FILE]
 *       > llama_cpp.jsonl
 *
 * Installs node-llama-cpp from npm into `build/` on first use, which requires npm, git and g++. A variant is the dtype of the KV cache plus flash
 * attention; the fastest of each cell is printed, or all with --all. Variants alternate; progress goes to stderr.
 */
import { basename, resolve } from "@std/path";
import { provenanceOf } from "../../bench/provenance.ts";
import { Engine } from "../../engine/engine.ts";
import { log, print } from "../output.ts";
import { LlamaCppArm, repeatedIds } from "./arms.ts";
import { LlamaCpp } from "./llama_cpp/client.ts";
import { describe, fastest, measureAll, rowOf } from "./measure.ts";
import { BATCH_TOKENS, ggufFor, readOptions, runScript, tokensNeeded } from "./options.ts";
import { LoadWatch } from "./machine_load.ts";

async function main(): Promise<void> {
  const options = readOptions(Deno.args, { depths: "4096,8192,16384,32640", variants: "f16:on,f16:off" });
  await using engine = await Engine.load(options.model, { device: options.device, threads: options.threads });
  const { device } = await provenanceOf(engine.describeDevice(), { command: "" });
  const contextTokens = tokensNeeded(options);
  await using peer = await LlamaCpp.start(await ggufFor(options), options.device === "cuda" ? "cuda" : "cpu");
  const { threads } = options;
  const open = { contextTokens, batchTokens: BATCH_TOKENS, threads };
  const arms: LlamaCppArm[] = [];
  for (const variant of options.variants) arms.push(await LlamaCppArm.open(peer, { ...open, ...variant }));
  log(`${peer.program}, ${threads} threads on ${device}; ${peer.system}`);
  const command = ["deno", "run", "-A", "scripts/peers/measure_llama_cpp.ts", ...Deno.args].join(" ");
  const facts = { model: basename(resolve(options.model)), program: peer.program, device, command };
  const plan = { ...options, ids: repeatedIds(engine, options.text, contextTokens) };
  for await (const cell of measureAll(arms, new LoadWatch([Deno.pid, peer.pid]), plan)) {
    for (const one of cell) log(describe(one));
    for (const one of options.flags["all"] ? cell : [fastest(cell)]) print(JSON.stringify(rowOf(one, facts)));
  }
}

if (import.meta.main) await runScript(main);
