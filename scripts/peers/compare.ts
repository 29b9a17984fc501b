/**
 * Ours, dense and sparse, against llama.cpp with the same weights, alternating in one run: a table with ratios.
 *
 *     deno run -A scripts/peers/compare.ts [--model DIR] [--depths 4096,8192,16384,32640] [--tokens 32] [--prompts 512] [--repeats 7]
 *       [--budget 512] [--threads N] [--variants f16:on,f16:off] [--text FILE] [--gguf FILE]
 *
 * A repetition during which other programs use more than 0.15 cores is repeated (Linux). Fails unless the native counters
 * show that the sparse arm selected pages and the dense one did not.
 */
import { provenanceOf } from "../../bench/provenance.ts";
import { Engine } from "../../engine/engine.ts";
import { log, print } from "../output.ts";
import { LlamaCppArm, ourArms, type PeerArm, repeatedIds } from "./arms.ts";
import { LlamaCpp } from "./llama_cpp/client.ts";
import { describe, measureAll } from "./measure.ts";
import { BATCH_TOKENS, ggufFor, readOptions, runScript, tokensNeeded } from "./options.ts";
import { LoadWatch } from "./machine_load.ts";
import { tableHead, tableLine } from "./table.ts";

async function main(): Promise<void> {
  const options = readOptions(Deno.args, { depths: "4096,8192,16384,32640", variants: "f16:on,f16:off" });
  const { threads } = options;
  await using engine = await Engine.load(options.model, { device: options.device, threads });
  const { commit, device, instruction_set } = await provenanceOf(engine.describeDevice(), { command: "" });
  const contextTokens = tokensNeeded(options);
  const ours = ourArms(engine, contextTokens, options.budgetTokens);
  using _session = ours.session;
  await using peer = await LlamaCpp.start(await ggufFor(options), options.device === "cuda" ? "cuda" : "cpu");
  const arms: PeerArm[] = [...ours.arms];
  const open = { contextTokens, batchTokens: BATCH_TOKENS, threads };
  for (const variant of options.variants) arms.push(await LlamaCppArm.open(peer, { ...open, ...variant }));
  print(`commit ${commit}, ${device}, ${instruction_set ?? "no"} instructions, ${threads} threads, ${peer.program}`);
  print(
    `${peer.system}\nmedian of ${options.repetitions} (10th to 90th percentile), ${options.decodeTokens} tokens each\n`,
  );
  print(tableHead(arms));
  const plan = { ...options, ids: repeatedIds(engine, options.text, contextTokens) };
  for await (const cell of measureAll(arms, new LoadWatch([Deno.pid, peer.pid]), plan)) {
    for (const one of cell) log(describe(one));
    print(tableLine(cell));
  }
}

if (import.meta.main) await runScript(main);
