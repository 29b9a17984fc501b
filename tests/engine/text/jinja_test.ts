/** Templates against what transformers makes of them (tests/fixtures/templates/expected.py). */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ChatTemplate } from "../../../engine/text/chat_template.ts";
import { PagesiftError } from "../../../engine/errors.ts";
import { strftime } from "../../../engine/text/jinja/strftime.ts";

const FOLDER = new URL("../../fixtures/templates/", import.meta.url);
const MESSAGES = [
  { role: "system", content: "Be brief." },
  { role: "user", content: 'It\'s "é\u{1f600}" & <b>\n a\tb ' },
];

interface Row {
  template: string;
  /** Null where transformers refuses the template. */
  rendered: string | null;
}

const ROWS: Row[] = JSON.parse(Deno.readTextFileSync(new URL("expected.json", FOLDER)));

/** The text of a template, or the error that refuses it. */
function render(template: string): string | PagesiftError {
  try {
    return new ChatTemplate(template, "test", { bos_token: "<s>", eos_token: "</s>" }).render(MESSAGES, true);
  } catch (error) {
    if (error instanceof PagesiftError) return error;
    throw error;
  }
}

Deno.test("A template gives what transformers gives, or is refused", () => {
  const wrong = ROWS.map(({ template, rendered }) => ({ template, wanted: rendered, found: render(template) }))
    .filter(({ wanted, found }) => typeof found === "string" && found !== wanted);
  assertEquals(wrong, []);
});

Deno.test("A template is only refused with a reason to give", () => {
  for (const { template } of ROWS) {
    const found = render(template);
    if (typeof found !== "string") assert(["model", "usage"].includes(found.kind) && !found.message.includes("\n"));
  }
});

/** What transformers renders and we name as not supported: each row needs one of these. */
const UNSUPPORTED =
  /it uses (?:the (?:filter|method|statement|member|text|format field|escape)|"self"|lipsum)[^;]* not supported; use --raw/;

Deno.test("A template that transformers renders is refused only for a feature that the message names", () => {
  const refused = ROWS.filter(({ rendered }) => rendered !== null).map(({ template }) => render(template))
    .filter((found) => typeof found !== "string");
  for (const { message } of refused) assert(UNSUPPORTED.test(message), message);
  // A few rows of exotic filters; the number is here so that it does not grow unseen.
  assertEquals(refused.length, 18);
});

Deno.test("strftime_now fills in every field as Python does", () => {
  const rows: [string, Record<string, string>][] = JSON.parse(Deno.readTextFileSync(new URL("strftime.json", FOLDER)));
  for (const [time, wanted] of rows) {
    const found = Object.fromEntries(Object.keys(wanted).map((format) => [format, strftime(new Date(time), format)]));
    assertEquals(found, wanted, time);
  }
});

for (const format of ["%", "%Q", "%Ey", "%N", "%-"]) {
  Deno.test(`strftime_now refuses the format "${format}"`, () => {
    assertThrows(() => strftime(new Date(), format));
  });
}

for (const name of ["namespace-in-namespace", "python-printing", "strip-characters", "template-crlf"]) {
  Deno.test(`The chat template of the case ${name} gives what transformers gives`, async () => {
    const folder = new URL(`../../fixtures/cases/${name}/`, import.meta.url);
    const cases: { folder: string; input: string; want: string }[] = JSON.parse(
      await Deno.readTextFile(new URL("../cases.json", folder)),
    );
    const template = new ChatTemplate(await Deno.readTextFile(new URL("chat_template.jinja", folder)), name);
    const { input, want } = cases.find((one) => one.folder === name)!;
    assertEquals(template.render([{ role: "user", content: input }], true), want);
  });
}

Deno.test("The chat template of the case strftime has every field filled in", async () => {
  const source = await Deno.readTextFile(new URL("../../fixtures/cases/strftime/chat_template.jinja", import.meta.url));
  const text = new ChatTemplate(source, "strftime").render([{ role: "user", content: "hi" }], true);
  const found = /^([A-Z][a-z]+day), (\d{1,2}) ([A-Z][a-z]+) (\d{4}), (\d\d):(\d\d) (AM|PM) hi$/.exec(text);
  assert(found, text);
});
