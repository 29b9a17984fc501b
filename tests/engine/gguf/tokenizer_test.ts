/** Tokenizers of GGUF files against the `tokenizer.json` of the same model, and metadata that cannot be used. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { PagesiftError } from "../../../engine/errors.ts";
import { readGgufHeader } from "../../../engine/gguf/header.ts";
import { ggufEndTokens, ggufTokenizer } from "../../../engine/gguf/tokenizer.ts";
import { Tokenizer } from "../../../engine/text/tokenizer.ts";
import { convertGguf } from "../../../scripts/peers/convert_gguf.ts";
import { fixtureFolder } from "../../support/fixture_model.ts";
import { withFiles } from "../../support/folders.ts";
import { ggufBytes, type TestValue } from "../../support/gguf_bytes.ts";

const TEXTS = [
  "The quick brown fox, it's 12345 and they'll  jump\n\n over\tthe lazy dog!",
  "  leading and trailing  ",
  "日本語 Привет é ½ 😀👍🏽",
  "function f(x) {\n\treturn x !== null;\n}\n",
  "<s>[INST] <|im_start|>user\nHi<|im_end|>",
  "",
];

for (const name of ["llama-f32", "llama3-rope-bf16", "qwen2-bias-f32", "qwen3-qknorm-f32"]) {
  Deno.test(`the tokenizer of the GGUF file of ${name} gives the ids and the text of tokenizer.json`, async () => {
    await withFiles({}, async (folder) => {
      const { path } = await convertGguf(fixtureFolder(name), join(folder, "m.gguf"));
      const ours = ggufTokenizer(await readGgufHeader(path));
      const theirs = await Tokenizer.load(fixtureFolder(name));
      const options = { addSpecialTokens: false };
      for (const text of TEXTS) {
        const ids = theirs.encode(text, options);
        assertEquals(ours.encode(text, options), ids, text);
        assertEquals(ours.decode(ids), theirs.decode(ids));
      }
    });
  });
}

type Fields = Record<string, TestValue | undefined>;

const TOKENS = ["<unk>", "<s>", "</s>", "<|im_end|>", "a", "b", "Ġ", "ab", "Ġab", "[PAD9]"];
const BYTE_LEVEL: Fields = {
  model: { text: "gpt2" },
  pre: { text: "qwen2" },
  tokens: { texts: TOKENS },
  token_type: { i32s: [3, 3, 3, 3, 1, 1, 1, 1, 1, 5] },
  merges: { texts: ["a b", "Ġ ab"] },
  bos_token_id: { u32: 1 },
  eos_token_id: { u32: 2 },
};
const PIECES = ["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "b", "ab", "▁ab", "<tag>"];
const SENTENCE_PIECE: Fields = {
  model: { text: "llama" },
  tokens: { texts: PIECES },
  token_type: { i32s: [2, 3, 3, 6, 1, 1, 1, 1, 1, 4] },
  scores: { f32s: [0, 0, 0, 0, -9, -8, -7, -2, -1, 0] },
  bos_token_id: { u32: 1 },
  eos_token_id: { u32: 2 },
};

async function withHeader(
  fields: Fields,
  use: (header: Awaited<ReturnType<typeof readGgufHeader>>) => void | Promise<void>,
): Promise<void> {
  const entries = Object.entries(fields).flatMap(([name, value]): [string, TestValue][] =>
    value === undefined ? [] : [[name.includes(".") ? name : `tokenizer.ggml.${name}`, value]]
  );
  await withFiles({ "m.gguf": ggufBytes({ fields: entries }) }, async (folder) => {
    await use(await readGgufHeader(join(folder, "m.gguf")));
  });
}

async function idsOf(fields: Fields, text: string): Promise<number[]> {
  let ids: number[] = [];
  await withHeader(fields, (header) => {
    ids = ggufTokenizer(header).encode(text);
  });
  return ids;
}

async function assertRefused(fields: Fields, ...parts: string[]): Promise<void> {
  await withHeader(fields, async (header) => {
    const error = await assertRejects(() => Promise.resolve().then(() => ggufTokenizer(header)), PagesiftError);
    assertEquals(error.kind, "model");
    for (const part of ["m.gguf", ...parts]) assertStringIncludes(error.message, part);
  });
}

Deno.test("a byte-level tokenizer adds BOS only where the file says so", async () => {
  assertEquals(await idsOf(BYTE_LEVEL, "ab ab"), [7, 8]);
  assertEquals(await idsOf({ ...BYTE_LEVEL, add_bos_token: { bool: 1 } }, "ab ab"), [1, 7, 8]);
});

Deno.test("a SentencePiece tokenizer adds BOS and a space unless the file says otherwise", async () => {
  assertEquals(await idsOf(SENTENCE_PIECE, "ab"), [1, 8]);
  assertEquals(await idsOf({ ...SENTENCE_PIECE, add_space_prefix: { bool: 0 } }, "ab"), [1, 7]);
  assertEquals(await idsOf({ ...SENTENCE_PIECE, add_bos_token: { bool: 0 } }, "ab"), [8]);
});

Deno.test("a tokenizer adds EOS behind a text where the file says so", async () => {
  assertEquals(await idsOf({ ...SENTENCE_PIECE, add_eos_token: { bool: 1 } }, "ab"), [1, 8, 2]);
});

Deno.test("a SentencePiece tokenizer joins the pieces with the best score first", async () => {
  const scores = { f32s: [0, 0, 0, 0, -9, -8, -7, -2, -1, 0] };
  const tokens = { texts: ["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "b", "▁a", "ab", "<tag>"] };
  assertEquals(await idsOf({ ...SENTENCE_PIECE, tokens, scores }, "ab"), [1, 4, 8]);
});

Deno.test("a user-defined token is read wherever it stands, a control token is text", async () => {
  assertEquals((await idsOf(SENTENCE_PIECE, "ab<tag>")).slice(0, 3), [1, 8, 9]);
  assertEquals((await idsOf(SENTENCE_PIECE, "</s>")).includes(2), false);
});

Deno.test("tokens of Phi-3 take white space behind them away", async () => {
  const idsBehindTag = async (fields: Fields): Promise<number[]> => (await idsOf(fields, "<tag> \n ab")).slice(2);
  assertEquals(await idsBehindTag({ ...SENTENCE_PIECE, "general.architecture": { text: "phi3" } }), [8]);
  assertEquals((await idsBehindTag(SENTENCE_PIECE)).length > 1, true);
});

Deno.test("a generation ends at the end tokens of the file and at turn ends among its control tokens", async () => {
  await withHeader(
    { ...BYTE_LEVEL, eot_token_id: { u32: 5 } },
    (header) => assertEquals(ggufEndTokens(header), { eosTokenIds: [2, 5, 3], bosTokenId: 1 }),
  );
});

Deno.test("the chat template comes from the metadata and knows the special tokens", async () => {
  const template = "{{ bos_token }}{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}";
  await withHeader({ ...BYTE_LEVEL, "tokenizer.chat_template": { text: template } }, (header) => {
    const tokenizer = ggufTokenizer(header);
    assertEquals(tokenizer.applyChatTemplate([{ role: "user", content: "ab" }]), "<s>ab</s>");
  });
});

Deno.test("a file without the name of its pre-tokenizer is read with a warning", async () => {
  await withHeader({ ...BYTE_LEVEL, pre: undefined }, (header) => {
    assertStringIncludes(ggufTokenizer(header).notices[0]?.text ?? "", "tokenizer.ggml.pre");
  });
});

for (
  const [name, fields, ...parts] of [
    ["an unknown pre-tokenizer", { ...BYTE_LEVEL, pre: { text: "klingon" } }, "tokenizer.ggml.pre", "klingon"],
    ["an unknown kind of tokenizer", { ...BYTE_LEVEL, model: { text: "bert" } }, "tokenizer.ggml.model", "bert"],
    ["no tokens", { ...BYTE_LEVEL, tokens: undefined }, "tokenizer.ggml.tokens"],
    ["tokens that are numbers", { ...BYTE_LEVEL, tokens: { i32s: [1, 2] } }, "tokenizer.ggml.tokens"],
    ["a token twice", { ...BYTE_LEVEL, tokens: { texts: TOKENS.map((text) => text === "b" ? "a" : text) } }, '"a"'],
    ["fewer kinds than tokens", { ...BYTE_LEVEL, token_type: { i32s: [1] } }, "tokenizer.ggml.token_type"],
    ["fewer scores than tokens", { ...SENTENCE_PIECE, scores: { f32s: [1] } }, "tokenizer.ggml.scores"],
    ["no scores", { ...SENTENCE_PIECE, scores: undefined }, "tokenizer.ggml.scores"],
    ["a merge of an unknown token", { ...BYTE_LEVEL, merges: { texts: ["a x"] } }, "merge 0"],
  ] as [string, Fields, ...string[]][]
) {
  Deno.test(`a GGUF file with ${name} is refused`, () => assertRefused(fields, ...parts));
}
