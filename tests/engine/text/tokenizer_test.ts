import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { PagesiftError } from "../../../engine/errors.ts";
import { Tokenizer } from "../../../engine/text/tokenizer.ts";
import { Random } from "../../../engine/sample/random.ts";
import { ModelCopy } from "../../support/fixture_model.ts";
import { assertLinear } from "../../support/growth.ts";

interface Reference {
  tokenizer_cases: { text: string; ids: number[]; ids_no_special: number[]; decoded: string }[];
  chat: { messages: { role: string; content: string }[]; rendered: string; ids: number[] };
}

// deno-lint-ignore no-explicit-any
type Json = any;

const FIXTURES = new URL("../../fixtures/hf/", import.meta.url);
const MODELS = Array.from(Deno.readDirSync(FIXTURES)).filter((entry) => entry.isDirectory).map(({ name }) => name)
  .sort();
/** One model for each of the three kinds: SentencePiece-like, Llama 3 (adds BOS) and Qwen (adds nothing). */
const KINDS = ["llama-f32", "llama3-rope-bf16", "qwen2-bias-f32"];

function folderOf(model: string): string {
  return new URL(model, FIXTURES).pathname;
}

function readJson(model: string, name: string): Json {
  return JSON.parse(Deno.readTextFileSync(`${folderOf(model)}/${name}`));
}

/** Runs `body` with the tokenizer of a fixture after `change` altered its files. */
async function withChanged(
  change: (tokenizer: Json, config: Json) => unknown,
  body: (folder: string) => Promise<void>,
  model = "llama-f32",
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const [tokenizer, config] = [readJson(model, "tokenizer.json"), readJson(model, "tokenizer_config.json")];
    change(tokenizer, config);
    await Deno.writeTextFile(`${folder}/tokenizer.json`, JSON.stringify(tokenizer));
    await Deno.writeTextFile(`${folder}/tokenizer_config.json`, JSON.stringify(config));
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function loadFailure(folder: string, vocabSize?: number): Promise<PagesiftError> {
  const options = vocabSize === undefined ? {} : { vocabSize };
  const error = await assertRejects(() => Tokenizer.load(folder, options), PagesiftError);
  assertEquals(error.kind, "model");
  return error;
}

/** `words` random words of letters, spaces and the odd accent. */
function randomText(words: number, seed = 1): string {
  const random = new Random(seed);
  const letters = "eeeaaoitnshrdlucmf\u00e9\u{1f389}\n";
  const word = (): string => Array.from({ length: 1 + random.nextUint32() % 9 }, () => pick(letters)).join("");
  const pick = (text: string): string => [...text][random.nextUint32() % [...text].length]!;
  return Array.from({ length: words }, word).join(" ");
}

for (const model of MODELS) {
  const reference: Reference = readJson(model, "reference.json");
  const { chat, tokenizer_cases: cases } = reference;

  Deno.test(`Tokenizer encodes like transformers with ${model}`, async () => {
    const tokenizer = await Tokenizer.load(folderOf(model));
    assertEquals(cases.map(({ text }) => tokenizer.encode(text)), cases.map(({ ids }) => ids));
    const plain = cases.map(({ text }) => tokenizer.encode(text, { addSpecialTokens: false }));
    assertEquals(plain, cases.map((entry) => entry.ids_no_special));
  });

  Deno.test(`Tokenizer decodes like transformers with ${model}`, async () => {
    const tokenizer = await Tokenizer.load(folderOf(model));
    assertEquals(cases.map(({ ids }) => tokenizer.decode(ids)), cases.map(({ decoded }) => decoded));
  });

  Deno.test(`Tokenizer renders the chat like transformers with ${model}`, async () => {
    const tokenizer = await Tokenizer.load(folderOf(model));
    assertEquals(tokenizer.applyChatTemplate(chat.messages), chat.rendered);
    assertEquals(tokenizer.encodeChat(chat.messages), chat.ids);
    assertEquals(tokenizer.encode(chat.rendered, { addSpecialTokens: false, parseSpecial: true }), chat.ids);
  });
}

for (const model of KINDS) {
  const [special] = readJson(model, "tokenizer.json").added_tokens.slice(-1);
  const isSpecial = (id: number): boolean => id <= special.id;

  Deno.test(`Tokenizer takes special-token text as text with ${model}`, async () => {
    const tokenizer = await Tokenizer.load(folderOf(model));
    const text = `a${special.content} b`;
    const ids = tokenizer.encode(text, { addSpecialTokens: false });
    assertEquals(ids.filter(isSpecial), []);
    assertEquals(tokenizer.decode(ids), text);
  });

  Deno.test(`Tokenizer reads special tokens on request with ${model}`, async () => {
    const tokenizer = await Tokenizer.load(folderOf(model));
    const ids = tokenizer.encode(`a${special.content} b`, { addSpecialTokens: false, parseSpecial: true });
    assertEquals(ids.filter(isSpecial), [special.id]);
  });

  Deno.test(`Tokenizer keeps special-token text of a message out of the chat's control tokens with ${model}`, async () => {
    const tokenizer = await Tokenizer.load(folderOf(model));
    const control = (content: string): number[] => tokenizer.encodeChat([{ role: "user", content }]).filter(isSpecial);
    const nested = special.content.slice(0, 2) + special.content + special.content.slice(2);
    assertEquals(control(`a${special.content}b${nested}`), control("ab"));
  });

  Deno.test(`Tokenizer keeps the text of such a message with ${model}`, async () => {
    const tokenizer = await Tokenizer.load(folderOf(model));
    const content = `a${special.content}b`;
    assertStringIncludes(tokenizer.decode(tokenizer.encodeChat([{ role: "user", content }])), content);
  });

  Deno.test(`Tokenizer agrees with the library on long text with ${model}`, async () => {
    const tokenizer = await Tokenizer.load(folderOf(model));
    const library = new Library(readJson(model, "tokenizer.json"), readJson(model, "tokenizer_config.json"));
    const text = randomText(2000) + special.content + randomText(20, 2);
    assertEquals(tokenizer.encode(text, { parseSpecial: true }), library.encode(text).ids);
  });

  Deno.test(`Tokenizer takes no longer per KB of 80 KB than of 20 KB with ${model}`, async () => {
    const tokenizer = await Tokenizer.load(folderOf(model));
    const text = randomText(20_000);
    assertLinear((size) => tokenizer.encode(text.slice(0, size)), 20_000);
  });
}

Deno.test("Tokenizer adds one BOS to text that has one", async () => {
  const tokenizer = await Tokenizer.load(folderOf("llama-f32"));
  assertEquals(tokenizer.encode("<s>a", { parseSpecial: true }), tokenizer.encode("a"));
});

Deno.test("Tokenizer names its special tokens", async () => {
  const tokenizer = await Tokenizer.load(folderOf("llama-f32"));
  assertEquals([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.tokenId("<unk>")], [1, 2, 0]);
});

Deno.test("Tokenizer reads special tokens that are objects", async () => {
  await withChanged((_, config) => config.eos_token = { content: "</s>" }, async (folder) => {
    assertEquals((await Tokenizer.load(folder)).eosTokenId, 2);
  });
});

Deno.test("Tokenizer decodes no ids to no text", async () => {
  assertEquals((await Tokenizer.load(folderOf("llama-f32"))).decode([]), "");
});

Deno.test("Tokenizer decodes ids without a token to no text", async () => {
  const tokenizer = await Tokenizer.load(folderOf("qwen2-bias-f32"));
  const ids = tokenizer.encode("text");
  assertEquals(tokenizer.decode([99_999, ...ids, 100_000]), "text");
});

Deno.test("Tokenizer shows special tokens on request", async () => {
  const tokenizer = await Tokenizer.load(folderOf("qwen2-bias-f32"));
  assertEquals(tokenizer.decode([1, 2], { skipSpecialTokens: false }), "<|im_start|><|im_end|>");
});

Deno.test("Tokenizer leaves out the generation prompt on request", async () => {
  const tokenizer = await Tokenizer.load(folderOf("qwen2-bias-f32"));
  const rendered = tokenizer.applyChatTemplate([{ role: "user", content: "a" }], { addGenerationPrompt: false });
  assertEquals(rendered, "<|im_start|>user\na<|im_end|>\n");
});

Deno.test("Tokenizer takes the chat template of its configuration", async () => {
  await withChanged((_, config) => config.chat_template = "{{ messages[0].content }}!", async (folder) => {
    const tokenizer = await Tokenizer.load(folder);
    assert(tokenizer.hasChatTemplate);
    assertEquals(tokenizer.applyChatTemplate([{ role: "user", content: "a" }]), "a!");
  });
});

Deno.test("Tokenizer reports a missing chat template", async () => {
  await withChanged(() => {}, async (folder) => {
    const tokenizer = await Tokenizer.load(folder);
    assertEquals(tokenizer.hasChatTemplate, false);
    assertEquals(assertThrows(() => tokenizer.encodeChat([]), PagesiftError).kind, "model");
  });
});

Deno.test("Tokenizer takes spaces beside a token that strips them", async () => {
  const strip = (tokenizer: Json): unknown => Object.assign(tokenizer.added_tokens[2], { lstrip: true, rstrip: true });
  await withChanged(strip, async (folder) => {
    const tokenizer = await Tokenizer.load(folder);
    const encode = (text: string): number[] => tokenizer.encode(text, { parseSpecial: true });
    assertEquals(encode("a  </s>  b"), encode("a</s>b"));
  });
});

Deno.test("Tokenizer parses added words that are not special in any text", async () => {
  const add = (tokenizer: Json): unknown =>
    tokenizer.added_tokens.push({ id: 700, content: "<think>", normalized: false });
  await withChanged(add, async (folder) => {
    const tokenizer = await Tokenizer.load(folder);
    assert(tokenizer.encode("a<think>b").includes(700));
    assertEquals(tokenizer.decode(tokenizer.encode("a<think>b")), "a<think> b");
  });
});

Deno.test("Tokenizer accepts more embedding rows than tokens", async () => {
  assertEquals((await Tokenizer.load(folderOf("llama-f32"), { vocabSize: 1024 })).encode("", {}), [1]);
});

Deno.test("Tokenizer ignores added tokens without an embedding row, with a warning", async () => {
  using copy = ModelCopy.of("llama-f32");
  const file = join(copy.folder, "tokenizer.json");
  const json = JSON.parse(await Deno.readTextFile(file));
  json.added_tokens.push({ id: 700, content: "<pad>", special: true, normalized: false });
  await Deno.writeTextFile(file, JSON.stringify(json));
  const { notices } = await Tokenizer.load(copy.folder, { vocabSize: 700 });
  assertEquals(notices.map(({ level }) => level), ["warning"]);
  assertStringIncludes(notices[0]?.text ?? "", '"<pad>"');
});

Deno.test("Tokenizer refuses more tokens than embedding rows", async () => {
  const error = await loadFailure(folderOf("llama-f32"), 699);
  assertStringIncludes(error.message, "token ids up to 699, but the model has 699 embedding rows");
});

for (const Regex of ["a*a*!", "(\\w+)+!", "(a|aa)*!", "(a|aa)(a|aa)*(a*)*!"]) {
  Deno.test(`Tokenizer ends a text on which the pattern ${Regex} would take for ever`, async () => {
    const slow = { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false };
    await withChanged((files) => files.pre_tokenizer = slow, async (folder) => {
      const tokenizer = await Tokenizer.load(folder, { leastSeconds: 0.3 });
      const error = assertThrows(() => tokenizer.encode("a".repeat(10_000)), PagesiftError, "longer than 2 s");
      assertEquals(error.kind, "model");
      assert(tokenizer.encode("a".repeat(16)).length > 0);
    });
  });
}

Deno.test("Tokenizer.load ends when a normalizer would look at an added token for ever", async () => {
  const slow = { type: "Replace", pattern: { Regex: "a*a*!" }, content: "b" };
  const added = { id: 650, content: "a".repeat(20_000), special: false, normalized: true };
  const change = (files: Json): void => {
    files.normalizer = slow;
    files.added_tokens.push(added);
  };
  await withChanged(change, async (folder) => {
    const { kind, message } = await assertRejects(() => Tokenizer.load(folder, { leastSeconds: 0.1 }), PagesiftError);
    assertEquals(kind, "model");
    assertStringIncludes(message, "took longer");
  });
});

Deno.test("Tokenizer refuses a folder without tokenizer.json", async () => {
  assertStringIncludes((await loadFailure(folderOf("absent"))).message, 'No "tokenizer.json"');
});

Deno.test("Tokenizer refuses a file that is not JSON", async () => {
  await withChanged(() => {}, async (folder) => {
    await Deno.writeTextFile(`${folder}/tokenizer.json`, "version https://git-lfs.github.com/spec/v1");
    assertStringIncludes((await loadFailure(folder)).message, "not valid JSON");
  });
});

for (
  const [name, change, message] of [
    ["an unknown model type", (t) => t.model.type = "WordLevel", 'the model type is "WordLevel"'],
    ["a missing model", (t) => delete t.model, '"model" is missing'],
    ["a missing vocabulary", (t) => delete t.model.vocab, '"model.vocab" is missing'],
    ["missing merges", (t) => delete t.model.merges, '"model.merges" is missing'],
    ["a merge of one token", (t) => t.model.merges[3] = "ab", "merge 3 is"],
    ["a merge of unknown tokens", (t) => t.model.merges[3] = ["\u4e00", "a"], "merge 3 needs"],
    ["an id that is no number", (t) => t.model.vocab.a = "x", 'token "a" has the id "x"'],
    ["a negative id", (t) => t.model.vocab.a = -1, 'token "a" has the id -1'],
    ["an added token without text", (t) => delete t.added_tokens[1].content, 'added token 1 has no "content"'],
    ["an unknown pre-tokenizer", (t) => t.pre_tokenizer = { type: "Magic" }, "Magic"],
    [
      "an invalid pattern",
      (t) => t.pre_tokenizer = { type: "Split", pattern: { Regex: "(" }, behavior: "Isolated", invert: false },
      "tokenizer.json",
    ],
    [
      "an unknown token in the post-processor",
      (t) => t.post_processor.single[0].SpecialToken.id = "<x>",
      'adds "<x>", which the vocabulary lacks',
    ],
  ] as [string, (tokenizer: Json) => unknown, string][]
) {
  Deno.test(`Tokenizer refuses ${name}`, async () => {
    await withChanged(change, async (folder) => {
      assertStringIncludes((await loadFailure(folder)).message, message);
    });
  });
}

Deno.test("Tokenizer reads special tokens that only special_tokens_map.json names", async () => {
  const folder = new URL("../../fixtures/cases/special-tokens-map", import.meta.url).pathname;
  const tokenizer = await Tokenizer.load(folder);
  assertEquals(tokenizer.applyChatTemplate([{ role: "user", content: "hi" }]), "<s>hi</s>");
});

Deno.test("Tokenizer.specialId knows special tokens only", async () => {
  const tokenizer = await Tokenizer.load(folderOf("qwen3-qknorm-f32"));
  assertEquals(tokenizer.specialId("<|im_end|>"), tokenizer.tokenId("<|im_end|>"));
  assertEquals([tokenizer.specialId("a"), tokenizer.specialId("<|no such|>")], [undefined, undefined]);
});
