import { assertEquals, assertLess, assertMatch, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { type ChatMessage, ChatTemplate, findChatTemplate } from "../../../engine/text/chat_template.ts";
import { PagesiftError } from "../../../engine/errors.ts";
import type { TemplateLimits } from "../../../engine/text/jinja/budget.ts";

const HELLO: ChatMessage[] = [{ role: "user", content: "Hello" }];

function render(source: string, messages = HELLO, variables: Record<string, string> = {}): string {
  return new ChatTemplate(source, "test.jinja", variables).render(messages, true);
}

function failure(source: string, limits: Partial<TemplateLimits> = {}, messages = HELLO): PagesiftError {
  const template = new ChatTemplate(source, "test.jinja", {}, { maxMilliseconds: 200, ...limits });
  return assertThrows(() => template.render(messages, true), PagesiftError);
}

/** Runs `body` in a folder that holds `files`. */
async function withFolder(files: Record<string, string>, body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, text] of Object.entries(files)) await Deno.writeTextFile(`${folder}/${name}`, text);
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("ChatTemplate sees the messages and the generation flag", () => {
  const source = "{% for m in messages %}{{ m.role }}: {{ m['content'] }}{% endfor %}{{ add_generation_prompt }}";
  assertEquals(render(source), "user: HelloTrue");
});

Deno.test("ChatTemplate sees the special tokens that exist", () => {
  assertEquals(render("{{ bos_token }}{{ eos_token }}", HELLO, { bos_token: "<s>" }), "<s>");
});

Deno.test("ChatTemplate sees the variables of a conversation, also those that are false", () => {
  const template = new ChatTemplate("{{ enable_thinking is defined and not enable_thinking }}", "test.jinja");
  assertEquals(template.render(HELLO, true, { enable_thinking: false }), "True");
});

Deno.test("ChatTemplate passes no tools", () => {
  assertEquals(render("{% if tools is none %}none{% endif %}{% if tools %}some{% endif %}"), "none");
});

Deno.test("ChatTemplate trims white space around blocks", () => {
  assertEquals(render("a\n  {% if true %}\n b\n  {% endif %}\nc"), "a\n b\nc");
});

Deno.test("ChatTemplate formats the time", () => {
  assertMatch(
    render("{{ strftime_now('%d %b %Y %B %m %H:%M %%') }}"),
    /^\d\d [A-Z][a-z]{2} \d{4} [A-Z][a-z]+ \d\d \d\d:\d\d %$/,
  );
});

Deno.test("ChatTemplate offers ranges up and down", () => {
  assertEquals(render("{{ range(3)|join }} {{ range(2, 5)|join }} {{ range(5, 0, -2)|join }}"), "012 234 531");
});

Deno.test("ChatTemplate reports what the template refuses as a usage error", () => {
  const error = failure("{{ raise_exception('Roles must alternate!') }}");
  assertEquals(error.kind, "usage");
  assertStringIncludes(error.message, "Roles must alternate!");
});

Deno.test("ChatTemplate renders a long message", () => {
  const content = "word ".repeat(2_000_000);
  assertEquals(render("{{ '<' + messages[0].content + '>' }}", [{ role: "user", content }]).length, content.length + 2);
});

for (
  const [name, source] of [
    ["a huge range", "{% for a in range(1000000000) %}{% endfor %}"],
    ["a range without end", "{% for a in range(0, 1, 0) %}{% endfor %}"],
    ["nested loops", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"],
    [
      "nested loops over one list",
      "{% set r = range(99999) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
    ],
    ["a macro without end", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"],
    ["a macro tree", "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"],
    [
      "a string that doubles",
      "{% set n = namespace(s='a') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    ],
    [
      "a list that doubles",
      "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
    ],
    [
      "JSON of a list of itself twice",
      "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s | tojson }}",
    ],
    [
      "a list that contains itself through many lists",
      "{% set n = namespace(s=[1]) %}{% for i in range(99999) %}{% set n.s = [n.s] %}{% endfor %}{{ n.s }}",
    ],
    [
      "a list of itself twice",
      "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
    ],
    ["a namespace in itself", "{% set n = namespace() %}{% set n.a = [n, n] %}{{ n }}"],
    ["a huge indent", "{{ 'a\\nb\\nc' | indent(500000000) }}"],
    ["a huge replacement", "{% set s = range(99999)|join %}{{ s | replace('1', s) }}"],
    [
      "many lists",
      "{% set n = namespace(a=[]) %}{% for i in range(99999) %}{% set n.a = n.a + [range(99999)] %}{% endfor %}",
    ],
    ["deep nesting", `{{ ${"(".repeat(100_000)} }}`],
    ["many brackets that close", `{{ ${"[".repeat(50_000)}${"]".repeat(50_000)} }}`],
    [
      "equal lists of shared lists",
      "{% set n = namespace(s=[1], t=[1]) %}{% for i in range(99) %}{% set n.s = [n.s, n.s] %}{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.s == n.t }}",
    ],
    [
      "shared keys",
      "{% set ns = namespace(t=(1,)) %}{% for i in range(99) %}{% set ns.t = (ns.t, ns.t) %}{% endfor %}{{ {ns.t: 1} }}",
    ],
    ["a large power", "{{ 9 ** 99999999 }}"],
    ["a large product of a string", "{{ 'a' * 10 ** 12 }}"],
    ["a wide format", "{{ '%999999999d' % 1 }}"],
    ["a wide field", "{{ 'a'.ljust(10 ** 12) }}"],
    ["an unknown filter where nothing runs it", "{% if false %}{{ 1 | nosuch }}{% endif %}"],
    ["a huge source", "a".repeat(300_000)],
    ["an include", "{% include '/etc/passwd' %}"],
    ["broken syntax", "{% for"],
  ] as const
) {
  Deno.test(`ChatTemplate ends ${name} with an error`, () => {
    const start = performance.now();
    const error = failure(source);
    assertEquals(error.kind, "model");
    assertStringIncludes(error.message, "--raw");
    assertLess(performance.now() - start, 60_000); // on a busy machine, too
  });
}

Deno.test("ChatTemplate limits its output", () => {
  const error = failure("{% for i in range(200) %}0123456789{% endfor %}", { maxCharacters: 900 });
  assertStringIncludes(error.message, "more text");
});

Deno.test("ChatTemplate reports errors on one line", () => {
  assertEquals(failure("{{ raise_exception('a\\nb') }}").message.includes("\n"), false);
});

Deno.test("findChatTemplate prefers the file to the configuration", async () => {
  await withFolder({ "chat_template.jinja": "file" }, async (folder) => {
    assertEquals((await findChatTemplate(folder, { chat_template: "config" }, {}))?.source, "file");
  });
});

Deno.test("findChatTemplate takes the default of a list", async () => {
  const list = [{ name: "tool_use", template: "tools" }, { name: "default", template: "plain" }];
  await withFolder({}, async (folder) => {
    assertEquals((await findChatTemplate(folder, { chat_template: list }, {}))?.source, "plain");
  });
});

Deno.test("findChatTemplate refuses a list without a default, as transformers does", async () => {
  const list = [{ name: "tool_use", template: "tools" }, { name: "rag", template: "plain" }];
  await withFolder({}, async (folder) => {
    const error = await assertRejects(() => findChatTemplate(folder, { chat_template: list }, {}), PagesiftError);
    assertEquals(error.kind, "model");
    assertStringIncludes(error.message, "default");
  });
});

Deno.test("ChatTemplate renders a long run of white space", () => {
  assertEquals(render(" ".repeat(200_000)).length, 200_000);
});

Deno.test("findChatTemplate finds nothing where there is nothing", async () => {
  await withFolder({}, async (folder) => {
    assertEquals(await findChatTemplate(folder, {}, {}), undefined);
  });
});

Deno.test("findChatTemplate refuses a huge file", async () => {
  await withFolder({ "chat_template.jinja": " ".repeat(2_000_000) }, async (folder) => {
    assertEquals((await assertRejects(() => findChatTemplate(folder, {}, {}), PagesiftError)).kind, "model");
  });
});
