/** Small tokenizers, one for each feature of tokenizer.json, against the Rust library (tests/fixtures/tokenizers/expected.py). */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { PagesiftError } from "../../../engine/errors.ts";
import { Tokenizer } from "../../../engine/text/tokenizer.ts";

interface Expected {
  texts: string[];
  models: unknown[];
  rows: {
    name: string;
    model: number;
    rest: Record<string, unknown>;
    cases: [ids: number[] | null, text: string | null][];
  }[];
}

const FOLDER = new URL("../../fixtures/tokenizers/", import.meta.url);
const { texts, models, rows }: Expected = JSON.parse(Deno.readTextFileSync(new URL("expected.json", FOLDER)));

/** The tokenizer of a definition, or the error that refuses it. */
async function load(definition: unknown): Promise<Tokenizer | PagesiftError> {
  const folder = Deno.makeTempDirSync();
  try {
    Deno.writeTextFileSync(`${folder}/tokenizer.json`, JSON.stringify(definition));
    return await Tokenizer.load(folder);
  } catch (error) {
    if (error instanceof PagesiftError) return error;
    throw error;
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("A tokenizer gives the ids and the text of the Rust library, or is refused with the feature's name", async () => {
  const wrong: unknown[] = [];
  let right = 0;
  for (const { name, model, rest, cases } of rows) {
    const tokenizer = await load({ ...rest, model: models[model] });
    if (tokenizer instanceof PagesiftError) {
      assertEquals(tokenizer.kind, "model");
      assert(
        /it has the .*not supported|it has a .*not supported|the model type is/.test(tokenizer.message),
        tokenizer.message,
      );
      continue;
    }
    right++;
    cases.forEach(([ids, text], index) => {
      const found = tokenizer.encode(texts[index]!, { addSpecialTokens: false, parseSpecial: true });
      if (ids !== null && found.join() !== ids.join()) wrong.push({ name, text: texts[index], found, ids });
      if (ids === null || text === null) return;
      const decoded = tokenizer.decode(ids, { skipSpecialTokens: false });
      if (decoded !== text) wrong.push({ name, text: texts[index], decoded, wanted: text });
    });
  }
  assertEquals(wrong, []);
  // So that a change which refuses more is seen.
  assertEquals([right, rows.length - right], [74, 35]);
});

Deno.test("Digits cuts at every numeric character, as the Rust library does", async () => {
  const model = { type: "BPE", vocab: { "½": 0, "²": 1, "½²": 2, "a": 3 }, merges: ["½ ²"] };
  for (const [individual_digits, ids] of [[true, [3, 0, 1]], [false, [3, 2]]] as const) {
    const tokenizer = await load({ model, pre_tokenizer: { type: "Digits", individual_digits } });
    assertEquals(tokenizer instanceof Tokenizer && tokenizer.encode("a½²"), [...ids]);
  }
});

interface Case {
  folder: string;
  call: "ids" | "decode" | "chat";
  input: string & number[];
  want: unknown;
}

const CASES = new URL("../../fixtures/cases/", import.meta.url);
const cases: Case[] = JSON.parse(Deno.readTextFileSync(new URL("cases.json", CASES)));
/** Cases of features that are refused. */
const REFUSED = ["unigram-byte-fallback", "split-invert", "split-behaviour/contiguous"];

for (const { folder, call, input, want } of cases) {
  const path = new URL(folder, CASES).pathname;
  Deno.test(`The case ${folder} with ${JSON.stringify(input)} is ${REFUSED.includes(folder) ? "refused" : "right"}`, async () => {
    if (REFUSED.includes(folder)) {
      assertEquals((await assertRejects(() => Tokenizer.load(path), PagesiftError)).kind, "model");
      return;
    }
    const tokenizer = await Tokenizer.load(path);
    const found = call === "ids"
      ? tokenizer.encode(input, { addSpecialTokens: false, parseSpecial: true })
      : call === "decode"
      ? tokenizer.decode(input, { skipSpecialTokens: false })
      : tokenizer.applyChatTemplate([{ role: "user", content: input }]);
    assertEquals(found, want);
  });
}
