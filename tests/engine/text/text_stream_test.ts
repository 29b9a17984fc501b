import { assert, assertEquals, assertLess } from "@std/assert";
import { Random } from "../../../engine/sample/random.ts";
import { TextStream, type TokenDecoder } from "../../../engine/text/text_stream.ts";
import { Tokenizer } from "../../../engine/text/tokenizer.ts";

const FIXTURES = new URL("../../fixtures/hf/", import.meta.url);
const MODELS = Array.from(Deno.readDirSync(FIXTURES)).filter((entry) => entry.isDirectory).map(({ name }) => name)
  .sort();
/** One model for each decoder: bytes as tokens among SentencePiece words, and byte-level BPE. */
const DECODERS = ["llama-f32", "qwen2-bias-f32"];

function load(model: string): Promise<Tokenizer> {
  return Tokenizer.load(new URL(model, FIXTURES).pathname);
}

/** The pieces for `ids`, the flush last. */
function pieces(decoder: TokenDecoder, ids: readonly number[], context: readonly number[] = []): string[] {
  const stream = new TextStream(decoder, context);
  return [...ids.map((id) => stream.push(id)), stream.flush()];
}

/** Every id is a byte, -1 is silent. */
const BYTES: TokenDecoder = {
  decode: (ids) => new TextDecoder().decode(Uint8Array.from(ids)),
  isSilent: (id) => id === -1,
};

for (const model of MODELS) {
  Deno.test(`TextStream reproduces every text with ${model}`, async () => {
    const tokenizer = await load(model);
    const { tokenizer_cases: cases } = JSON.parse(
      await Deno.readTextFile(new URL(`${model}/reference.json`, FIXTURES)),
    ) as { tokenizer_cases: { ids: number[]; decoded: string }[] };
    assertEquals(cases.map(({ ids }) => pieces(tokenizer, ids).join("")), cases.map(({ decoded }) => decoded));
  });
}

for (const model of DECODERS) {
  Deno.test(`TextStream reproduces the decoding of random ids with ${model}`, async () => {
    const tokenizer = await load(model);
    const random = new Random(1);
    for (let run = 0; run < 50; run++) {
      const ids = Array.from({ length: 200 }, () => random.nextUint32() % 520);
      assertEquals(pieces(tokenizer, ids).join(""), tokenizer.decode(ids));
    }
  });

  Deno.test(`TextStream holds an emoji sequence back by characters with ${model}`, async () => {
    const tokenizer = await load(model);
    const text = "\u{1f469}\u200d\u{1f469}\u200d\u{1f467} \u{1f3f3}\ufe0f\u200d\u{1f308}";
    const out = pieces(tokenizer, tokenizer.encode(text));
    assertEquals(out.join(""), text);
    assertEquals(out.filter((piece) => !piece.isWellFormed() || piece.includes("\uFFFD")), []);
  });

  Deno.test(`TextStream flushes a dangling character as one U+FFFD with ${model}`, async () => {
    const tokenizer = await load(model);
    const ids = tokenizer.encode("a\u{1f389}");
    assertEquals(pieces(tokenizer, ids.slice(0, -1)).join(""), "a\uFFFD");
  });

  Deno.test(`TextStream decodes no more ids per token of 10,000 than of 2,500 with ${model}`, async () => {
    const tokenizer = await load(model);
    const ids = tokenizer.encode("Some words, and \u{1f389} again. ".repeat(1000));
    const decodedPerToken = (tokens: number): number => {
      let decodedIds = 0;
      const decode = (some: readonly number[]): string => {
        decodedIds += some.length;
        return tokenizer.decode(some);
      };
      pieces({ decode, isSilent: (id) => tokenizer.isSilent(id) }, ids.slice(0, tokens));
      return decodedIds / tokens;
    };
    assertLess(decodedPerToken(10_000), 1.1 * decodedPerToken(2500));
  });
}

Deno.test("TextStream drops the leading space of a first word", async () => {
  const tokenizer = await load("llama-f32");
  assertEquals(pieces(tokenizer, tokenizer.encode("the day")).join(""), "the day");
});

Deno.test("TextStream keeps the leading space of a word that continues a text", async () => {
  const tokenizer = await load("llama-f32");
  const word = tokenizer.encode("the", { addSpecialTokens: false });
  assertEquals(pieces(tokenizer, word, tokenizer.encode("all")).join(""), " the");
});

Deno.test("TextStream keeps a space after many special tokens", async () => {
  const tokenizer = await load("llama-f32");
  const ids = [...tokenizer.encode("all"), ...new Array(50).fill(2), ...tokenizer.encode("the")];
  assertEquals(pieces(tokenizer, ids).join(""), "all the");
});

Deno.test("TextStream completes a character that its context began", () => {
  assertEquals(pieces(BYTES, [0xa9], [0x61, 0xc3]), ["\u00e9", ""]);
});

Deno.test("TextStream emits a character with its last byte", () => {
  assertEquals(pieces(BYTES, [0xf0, 0x9f, 0x8e, 0x89]), ["", "", "", "\u{1f389}", ""]);
});

Deno.test("TextStream emits a real U+FFFD", () => {
  assertEquals(pieces(BYTES, [0xef, 0xbf, 0xbd, 0x61]).join(""), "\uFFFDa");
});

Deno.test("TextStream ignores silent tokens inside a character", () => {
  assertEquals(pieces(BYTES, [0xc3, -1, 0xa9]).join(""), "\u00e9");
});

Deno.test("TextStream passes broken bytes on without collecting them", () => {
  const stream = new TextStream(BYTES);
  let text = "";
  for (let i = 0; i < 1000; i++) text += stream.push(0xff);
  assert(text.length >= 999);
  assertEquals(text + stream.flush(), "\uFFFD".repeat(1000));
});

Deno.test("TextStream reproduces random bytes", () => {
  const random = new Random(3);
  const choices = [0x61, 0x80, 0xbf, 0xc3, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x8e, 0xff];
  for (let run = 0; run < 200; run++) {
    const ids = Array.from({ length: 100 }, () => choices[random.nextUint32() % choices.length]!);
    assertEquals(pieces(BYTES, ids).join(""), BYTES.decode(ids));
  }
});
