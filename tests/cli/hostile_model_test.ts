/** Model folders that are broken or hostile, through the whole program: exit code 3, one line on stderr, nothing on stdout. */
import { assert } from "@std/assert";
import { join } from "@std/path";
import {
  bytes,
  type Change,
  header,
  headerText,
  hostileModel,
  INDEX,
  type Json,
  json,
  WEIGHTS,
  write,
} from "../support/hostile_model.ts";
import { assertRefusal, runReal } from "../support/real_world.ts";
import { rawSafetensors } from "../support/safetensors_bytes.ts";

const NORM = "model.norm.weight";
const HEAD = "lm_head.weight";
const EMBEDDING = "model.embed_tokens.weight";
const SHARDED = "qwen3-sharded-bf16";
const SHARD = "model-00004-of-00008.safetensors";
const MAX_SECONDS = 60; // on a busy machine, too

type Case = [name: string, change: Change, ...parts: string[]];

const entry = (name: string, change: (tensor: Json) => unknown): Change => header((value) => change(value[name]));

const WEIGHT_FILES: Case[] = [
  ["weights of seven bytes", write(WEIGHTS, new Uint8Array(7)), WEIGHTS, "only 7 bytes"],
  ["a header longer than the file", write(WEIGHTS, rawSafetensors(new Uint8Array(2), 0, 99n)), "have 10 of 107 bytes"],
  [
    "a header over 100 MB",
    write(WEIGHTS, rawSafetensors(new Uint8Array(2), 0, 2n ** 63n)),
    "9223372036854775808 bytes in a file of 10",
  ],
  ["a header that is not UTF-8", write(WEIGHTS, rawSafetensors(Uint8Array.of(0x7b, 0xff))), WEIGHTS, "not UTF-8"],
  ["a header that is not JSON", headerText(() => "{"), WEIGHTS, "not valid JSON"],
  ["a header that is a list", headerText(() => "[]"), WEIGHTS, "expected a JSON object"],
  ["a key twice", headerText((text) => `{"${NORM}":0,${text.slice(1)}`), `"${NORM}" appears twice`],
  ["a deep header", headerText(() => '{"a":'.repeat(200_000)), "nested deeper than 8 levels"],
  [
    "100,000 entries and more",
    headerText(() => `{${Array.from({ length: 100_002 }, (_, i) => `"${i}":0`)}}`),
    "more than 100001 entries",
  ],
  ["a header of a million lists", headerText(() => `{"a":[${"[],".repeat(4_000_000)}[]]}`), "values"],
  ["a negative offset", entry(HEAD, (t) => t.data_offsets[0] = -4), HEAD, "not negative"],
  ["reversed offsets", entry(HEAD, (t) => t.data_offsets.reverse()), HEAD, "reversed"],
  ["overlapping tensors", entry(EMBEDDING, (t) => t.data_offsets = [4, 179204]), EMBEDDING, "overlaps"],
  [
    "a gap",
    headerText((text) => text.replace(`"${HEAD}"`, `"x"`).replace(/"x":\{[^}]*\},/, "")),
    "starts 179200 bytes",
  ],
  ["bytes behind the tensors", bytes((all) => new Uint8Array([...all, 0x50, 0x4b])), "2 bytes follow the last tensor"],
  ["a span of another size", entry(NORM, (t) => t.shape = [63]), NORM, "takes 252 bytes", "span 256"],
  ["a product beyond 2^53", entry(NORM, (t) => t.shape = [2 ** 40, 2 ** 40]), NORM, "is too large"],
  ["a zero dimension", entry(NORM, (t) => t.shape = [0]), NORM, "takes 0 bytes"],
  ["a rank of nine", entry(NORM, (t) => t.shape = Array(9).fill(1)), NORM, "at most 8"],
  ["an unknown dtype", entry(NORM, (t) => t.dtype = "Q4_K"), NORM, '"Q4_K"', "BF16"],
  [
    "a dtype that no operation reads",
    entry(NORM, (t) => [t.dtype, t.shape] = ["I8", [256]]),
    NORM,
    "expected F32, F16",
  ],
  ["a download that ended early", bytes((all) => all.slice(0, -100)), "incomplete: have 879,268 of 879,368 bytes"],
  [
    "a Git LFS pointer",
    write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    "Git LFS pointer",
    "git lfs pull",
  ],
  [
    "no weights",
    (folder) => [WEIGHTS, "reference.safetensors"].forEach((name) => Deno.removeSync(join(folder, name))),
    "No weights",
    INDEX,
  ],
];

const map = (change: (weightMap: Json) => unknown): Change => json(INDEX, (index) => change(index.weight_map));
const renamed = (shard: string): Change => map((names) => names[NORM] = shard);
const linked = (target: string): Change => (folder) => {
  Deno.removeSync(join(folder, SHARD));
  Deno.symlinkSync(target, join(folder, SHARD));
};

const SHARDS: Case[] = [
  [
    "two missing shards",
    (folder) => ["1", "2"].forEach((n) => Deno.removeSync(join(folder, `model-0000${n}-of-00008.safetensors`))),
    "model-00001-of-00008.safetensors, model-00002-of-00008.safetensors",
  ],
  [
    "tensors that their shard lacks",
    map((names) => [names.b, names.a] = [SHARD, SHARD]),
    `a (${SHARD})`,
    `b (${SHARD})`,
    "are not in their files",
  ],
  [
    "tensors that the index lacks",
    map((names) => [delete names[NORM], delete names[HEAD]]),
    NORM,
    HEAD,
    "are missing in",
  ],
  [
    "a tensor in two shards",
    (folder) => {
      Deno.copyFileSync(join(folder, SHARD), join(folder, "copy.safetensors"));
      map((names) => names["model.layers.0.input_layernorm.weight"] = "copy.safetensors")(folder);
    },
    `model.layers.0.input_layernorm.weight (copy.safetensors, ${SHARD})`,
    "are in two files",
  ],
  ["a shard above the folder", renamed("../w.safetensors"), NORM, 'found "../w.safetensors"'],
  ["an absolute shard", renamed("/etc/w.safetensors"), NORM, 'found "/etc/w.safetensors"'],
  ["a shard with a NUL", renamed("a\0.safetensors"), NORM, "a plain *.safetensors name"],
  ["a shard that is a link out of the folder", linked("/etc/hostname"), SHARD, "a link out of its folder"],
  ["a shard that is a device", linked("/dev/zero"), SHARD, "a link out of its folder"],
  [
    "a shard that is a folder",
    (folder) => [Deno.removeSync(join(folder, SHARD)), Deno.mkdirSync(join(folder, SHARD))].length as unknown as void,
    SHARD,
    "expected a regular file",
  ],
];

const config = (fields: Record<string, unknown>): Change =>
  json("config.json", (value) => Object.assign(value, fields));

const CONFIGS: Case[] = [
  ["no config.json", (folder) => Deno.removeSync(join(folder, "config.json")), 'No "config.json"'],
  ["heads that do not divide", config({ num_attention_heads: 3 }), '"num_attention_heads"', "a multiple of"],
  ["an odd head_dim", config({ head_dim: 17 }), '"head_dim"', "a multiple of 16"],
  ["a head_dim that no kernel has", config({ head_dim: 1024 }), '"head_dim"', "from 16 to 512"],
  ["zero layers", config({ num_hidden_layers: 0 }), '"num_hidden_layers"', "from 1 to 1000"],
  ["a huge size", config({ hidden_size: 2 ** 40 }), '"hidden_size"', "1000000"],
  ["sizes that the tensors do not have", config({ intermediate_size: 161 }), "mlp.gate_proj.weight", "[161, 64]"],
  ["more layers than tensors", config({ num_hidden_layers: 1000 }), "lacks", "model.layers.3"],
  [
    "an unknown architecture",
    config({ architectures: ["MambaForCausalLM"] }),
    '"MambaForCausalLM"',
    "LlamaForCausalLM",
  ],
  ["an unknown rope type", config({ rope_parameters: { rope_type: "ntk" } }), '"rope_type"', "linear, llama3, yarn"],
  ["quantized weights", config({ quantization_config: { quant_method: "hqq" } }), '"hqq"', "bf16 weights"],
];

const tokenizer = (change: (value: Json) => unknown): Change => json("tokenizer.json", change);
const split = (Regex: string): Change =>
  tokenizer((t) => t.pre_tokenizer = { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false });

const part = (name: string, value: unknown): Change => tokenizer((t) => t[name] = value);
/** Nine of these make a billion letters of one. */
const TENFOLD = { type: "Replace", pattern: { String: "a" }, content: "a".repeat(10) };

const TOKENIZERS: Case[] = [
  ["no tokenizer", (folder) => Deno.removeSync(join(folder, "tokenizer.json")), 'No "tokenizer.json"'],
  ["more tokens than embedding rows", tokenizer((t) => t.model.vocab.zz = 700), "ids up to 700", "700 embedding rows"],
  ["a broken merge", tokenizer((t) => t.model.merges[3] = "ab"), "merge 3", "expected two tokens"],
  ["an unknown pre-tokenizer", tokenizer((t) => t.pre_tokenizer = { type: "Magic" }), "tokenizer.json", "Magic"],
  ["a pattern of no kind", part("pre_tokenizer", { type: "Split", pattern: "\u001b[2J" }), 'the pattern "\\u001b[2J"'],
  ["nothing for a decoder", part("decoder", { type: "Sequence", decoders: [null] }), "a part is null"],
  ["a decoder that cannot run", part("decoder", { type: "Sequence", decoders: "x" }), "tokenizer.json"],
  [
    "replacements that grow",
    part("normalizer", { type: "Sequence", normalizers: Array(9).fill(TENFOLD) }),
    "times as long",
  ],
  ["a pattern that is no regular expression", split("("), "tokenizer.json"],
];

function test(fixture: string, [name, change, ...parts]: Case, args: string[] = []): void {
  Deno.test(`generate ends with 3 and one line for a model folder with ${name}`, async () => {
    using copy = await hostileModel(fixture, change);
    const started = performance.now();
    const run = await runReal(["-m", copy.folder, ...args, "a".repeat(64)]);
    assertRefusal(run, 3, parts);
    assert(performance.now() - started < MAX_SECONDS * 1000);
  });
}

/** Files of the folder that are not weights. */
const LINKED = [
  "config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "generation_config.json",
  "sparsity.json",
  "chat_template.jinja",
];
for (const name of LINKED) {
  const link: Change = (folder) => {
    if (Deno.readDirSync(folder).some((entry) => entry.name === name)) Deno.removeSync(join(folder, name));
    Deno.symlinkSync("/etc/hostname", join(folder, name));
  };
  test("llama-f32", [`a ${name} that is a link out of the folder`, link, name, "a link out of its folder"], ["--chat"]);
}

for (const one of [...WEIGHT_FILES, ...CONFIGS, ...TOKENIZERS]) test("llama-f32", one);
for (const one of SHARDS) test(SHARDED, one);

test("qwen3-moe-f32", [
  "four million experts that it lacks",
  config({ num_hidden_layers: 1000, num_experts: 4096 }),
  "lacks",
]);

for (
  const [name, template] of [
    ["a template that never ends", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"],
    ["a template that includes a file", "{% include '/etc/passwd' %}"],
    [
      "a template of huge output",
      "{% set n = namespace(s='a') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    ],
  ] as const
) {
  test("llama-f32", [name, write("chat_template.jinja", template), "chat_template.jinja", "--raw"], ["--chat"]);
}

/** All characters that could stand for others are in the template, and what stands for them then is a special token itself. */
const endless: Change = (folder) => {
  const privateUse = Array.from({ length: 6400 }, (_, index) => String.fromCharCode(0xe000 + index)).join("");
  write("chat_template.jinja", `{# ${privateUse} #}{{ messages[0].content }}`)(folder);
  const added = ["a", "\ufffd"].map((content, index) => ({ id: 3 + index, content, special: true, normalized: false }));
  tokenizer((value) => value.added_tokens.push(...added))(folder);
};
test("llama-f32", ["special tokens that replace each other for ever", endless, "special tokens that cannot be kept"], [
  "--chat",
]);

Deno.test("generate ends with 8, the place of the first bad layer and no token for weights with NaN or infinity", async () => {
  for (const value of [NaN, Infinity, -Infinity]) {
    using copy = await hostileModel("llama-f32", () => {});
    await copy.poke("model.layers.1.mlp.down_proj.weight", 5, value);
    const run = await runReal(["-m", copy.folder, "Hello"]);
    assertRefusal(run, 8, ["not finite in the prompt of", "first in layer 1", "check the weights"]);
  }
});
