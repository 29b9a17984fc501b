import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { FakeSource, type FakeWorld, runGenerate, type RunResult } from "./fake_world.ts";

type Files = Record<string, string | Uint8Array>;

/** Runs with files in a folder of their own; `{dir}` in an argument stands for it. */
async function runWithFiles(files: Files, args: string[], stdin?: string | Uint8Array): Promise<RunResult> {
  const dir = await Deno.makeTempDir();
  try {
    for (const [name, text] of Object.entries(files)) {
      await Deno.writeFile(`${dir}/${name}`, typeof text === "string" ? new TextEncoder().encode(text) : text);
    }
    const result = await runGenerate(args.map((arg) => arg.replace("{dir}", dir)), withStdin(stdin));
    return { ...result, stderr: result.stderr.replaceAll(dir, "{dir}") };
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

function withStdin(input: string | Uint8Array | undefined): (world: FakeWorld) => void {
  return (world) => world.stdin = new FakeSource(input);
}

/** The prompt that the engine was given, without the special token in front. */
async function promptOf(args: string[], stdin?: string | Uint8Array, files: Files = {}): Promise<string | undefined> {
  const { engine } = await runWithFiles(files, args, stdin);
  return engine.prompts[0]?.replace(/^<s>/, "");
}

async function assertRefused(
  args: string[],
  keyword: string,
  stdin?: string | Uint8Array,
  files: Files = {},
): Promise<void> {
  const { stderr, stdout, ending, engine } = await runWithFiles(files, args, stdin);
  assertEquals([stdout, ending], ["", { code: 2 }]);
  assertMatch(stderr, /^Error: .*\n$/);
  assertStringIncludes(stderr, keyword);
  assertEquals(engine.loaded, undefined);
}

Deno.test("generate takes the prompt from its argument", async () =>
  assertEquals(await promptOf(["Once upon"]), "Once upon"));

Deno.test("generate joins the words of its arguments", async () =>
  assertEquals(await promptOf(["Once", "upon"]), "Once upon"));

Deno.test("generate takes the prompt from -p", async () => assertEquals(await promptOf(["-p", "Once"]), "Once"));

Deno.test("generate keeps the newline that ends a typed prompt", async () => {
  assertEquals(await promptOf(["Once\n"]), "Once\n");
});

Deno.test("generate takes the prompt from a pipe and leaves out the newline at its end", async () => {
  assertEquals(await promptOf([], "Once\nupon\n"), "Once\nupon");
});

Deno.test("generate keeps CRLF inside the text", async () => assertEquals(await promptOf([], "a\r\nb\r\n"), "a\r\nb"));

Deno.test("generate puts stdin, files, -p and arguments in this order with blank lines between", async () => {
  const prompt = await promptOf(["Why?", "-p", "So.", "-f", "{dir}/a", "-f", "{dir}/b"], "Piped\n", {
    a: "A",
    b: "B\n\n",
  });
  assertEquals(prompt, "Piped\n\nA\n\nB\n\nSo.\n\nWhy?");
});

Deno.test("generate takes an empty pipe as no part of the prompt", async () =>
  assertEquals(await promptOf(["Hi"], ""), "Hi"));

Deno.test("generate leaves stdin unread under --no-stdin", async () => {
  assertEquals(await promptOf(["Hi", "--no-stdin"], "Piped"), "Hi");
});

Deno.test("generate reads stdin once for a dash", async () => {
  assertEquals(await promptOf(["-", "-f", "-", "Why?"], "Piped"), "Piped\n\nWhy?");
});

Deno.test("generate drops one byte order mark", async () => {
  assertEquals(await promptOf([], "\uFEFF\uFEFFtext"), "\uFEFFtext");
});

Deno.test("generate refuses a dash together with --no-stdin", async () => {
  await assertRefused(["-", "--no-stdin"], "--no-stdin");
});

Deno.test("generate on a terminal without a prompt ends with 2 and shows how", async () => {
  const { stderr, ending } = await runGenerate([]);
  assertMatch(stderr, /^Error: Nothing to do; .*pagesift generate .*\n$/);
  assertEquals(ending, { code: 2 });
});

const empty = "Prompt is empty";

Deno.test("generate refuses an empty prompt", async () => await assertRefused([""], empty));

Deno.test("generate refuses a prompt of whitespace", async () => await assertRefused(["-p", " \n\t"], empty));

Deno.test("generate refuses an empty pipe", async () => await assertRefused([], empty, ""));

Deno.test("generate refuses an empty file", async () =>
  await assertRefused(["-f", "{dir}/a"], empty, undefined, { a: "" }));

Deno.test("generate refuses a file that is absent", async () => {
  await assertRefused(["-f", "{dir}/none"], `Prompt file "{dir}/none" not found`);
});

Deno.test("generate refuses a folder as a prompt file", async () => {
  await assertRefused(["-f", "{dir}"], `Prompt file "{dir}" is a folder`);
});

Deno.test("generate refuses text that is not UTF-8 and tells where", async () => {
  const bytes = new Uint8Array([65, 66, 0xff, 67]);
  const message = "0xff at offset 2";
  await assertRefused([], message, bytes);
});

Deno.test("generate --lossy replaces what is no text", async () => {
  assertEquals(await promptOf(["--lossy"], new Uint8Array([65, 0xff, 0, 66])), "A\uFFFD\uFFFDB");
});

Deno.test("generate --lossy tells how many characters it replaced", async () => {
  const { stderr } = await runWithFiles({}, ["--lossy"], new Uint8Array([65, 0xff, 0, 66]));
  assertMatch(stderr, /^Warning: Text on stdin: .*\b2\b.*\n$/);
});

Deno.test("generate tells after two seconds that stdin is awaited", async () => {
  const { stderr } = await runGenerate([], (world) => {
    const source = new FakeSource("late");
    let waited = false;
    world.stdin = {
      isTerminal: () => false,
      read: async (buffer) => {
        if (!waited) await new Promise((resolve) => setTimeout(resolve, 2100));
        waited = true;
        return source.read(buffer);
      },
    };
  });
  assertMatch(stderr, /^Waiting .*--no-stdin.*\n$/);
});

Deno.test("generate refuses more than 256 MiB on stdin", async () => {
  const { stderr, ending } = await runGenerate([], (world) => {
    world.stdin = { isTerminal: () => false, read: (buffer) => Promise.resolve(buffer.length) };
  });
  assertMatch(stderr, /^Error: .* 268,435,456 bytes.*\n$/);
  assertEquals(ending, { code: 2 });
});
