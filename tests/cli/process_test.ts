/** What only a process of its own can show: exit codes, signals, pipes and the real engine on the shipped model. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { libraryPath } from "../../scripts/release/toolchain.ts";
import { header, hostileModel, INDEX, json, write } from "../support/hostile_model.ts";

const MAIN = fromFileUrl(new URL("../../cli/main.ts", import.meta.url));
const FACT = "The pass key is 71432. Remember it.";
const QUESTION = "What is the pass key? The pass key is";
/** Hides the GPUs of a machine that has some. */
const NO_GPU = { CUDA_VISIBLE_DEVICES: "-1" };
const FILLER = "It was a bright morning and the ships lay quietly in the harbour. ";

interface ProcessOptions {
  stdin?: string;
  cwd?: string;
  env?: Record<string, string>;
}

interface ProcessResult {
  code: number;
  signal: string | null;
  stdout: string;
  stderr: string;
}

function start(args: string[], { cwd, env }: ProcessOptions = {}): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", MAIN, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1", ...env },
    ...cwd !== undefined && { cwd },
  }).spawn();
}

async function runProcess(args: string[], options: ProcessOptions = {}): Promise<ProcessResult> {
  const child = start(args, options);
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(options.stdin ?? "")).catch(() => {});
  await writer.close().catch(() => {});
  const { code, signal, stdout, stderr } = await child.output();
  return { code, signal, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

function generate(args: string[], options?: ProcessOptions): Promise<ProcessResult> {
  return runProcess(["generate", "--device", "cpu", ...args], options);
}

/** Reads a stream until it has held the text. */
async function readUntil(stream: ReadableStream<Uint8Array>, text: string): Promise<() => Promise<string>> {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let seen = "";
  while (!seen.includes(text)) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`The stream ended without "${text}": ${seen}`);
    seen += value;
  }
  return async () => {
    for (let next = await reader.read(); !next.done; next = await reader.read()) seen += next.value;
    return seen;
  };
}

Deno.test("pagesift --color on colours also under NO_COLOR", async () => {
  const { stderr } = await runProcess(["generate", "--color", "on", "-f", "no-such-file"], { env: { NO_COLOR: "1" } });
  assertStringIncludes(stderr, "\x1b[31mError: \x1b[0m");
});

Deno.test("generate prints the answer alone to stdout", async () => {
  const { code, stdout, stderr } = await generate(["-n", "6", `${FILLER}${FACT} ${FILLER}\n\n${QUESTION}`]);
  assertEquals([code, stdout, stderr], [0, " 71432\n", ""]);
});

Deno.test("generate answers a question about a text on stdin", async () => {
  const { code, stdout } = await generate(["-n", "6", QUESTION], { stdin: `${FILLER}${FACT} ${FILLER}\n` });
  assertEquals([code, stdout], [0, " 71432\n"]);
});

Deno.test("generate reads selected pages of a long text and counts them", async () => {
  const stdin = FILLER.repeat(20) + FACT + FILLER.repeat(60);
  const { stdout } = await generate(["-n", "6", "--json", "--sparse", "on", "--sparse-budget", "128", QUESTION], {
    stdin,
  });
  const { text, ids, finish, stats } = JSON.parse(stdout);
  assertEquals([text, ids.length, finish], [" 71432", 6, "length"]);
  assert(stats.selectedSteps > 0 && stats.selectedSteps === stats.decodeSteps, JSON.stringify(stats));
  assert(stats.pagesRead < stats.pagesDense, JSON.stringify(stats));
});

Deno.test("generate gives the same text for the same seed", async () => {
  const args = ["-n", "12", "--temp", "1", "--seed", "7", "The old captain"];
  assertEquals((await generate(args)).stdout, (await generate(args)).stdout);
});

Deno.test("generate --jsonl answers each prompt as it would alone", async () => {
  const prompts = ["The old captain", `${FACT}\n\n${QUESTION}`, "In the year"];
  const stdin = prompts.map((prompt) => JSON.stringify({ prompt, max_tokens: 5 })).join("\n");
  const { stdout } = await generate(["--jsonl", "-", "--ordered"], { stdin });
  const texts = stdout.trimEnd().split("\n").map((line) => JSON.parse(line).text + "\n");
  const alone: string[] = [];
  for (const prompt of prompts) alone.push((await generate(["-n", "5", prompt])).stdout);
  assertEquals(texts, alone);
});

Deno.test("generate finds its model and library from any working directory", async () => {
  const cwd = await Deno.makeTempDir();
  const { code, stdout } = await generate(["-n", "1", "Once"], { cwd });
  await Deno.remove(cwd);
  assertEquals(code, 0);
  assertMatch(stdout, /^.+\n$/);
});

Deno.test("generate stops quietly when its reader goes away", async () => {
  const child = start(["generate", "--device", "cpu", "-n", "20000", "Once upon a time"]);
  await child.stdin.close();
  const reader = child.stdout.getReader();
  await reader.read();
  await reader.cancel();
  const [{ code, signal }, stderr] = await Promise.all([child.status, new Response(child.stderr).text()]);
  assertEquals([code, signal, stderr], [0, null, ""]);
});

Deno.test("generate ends with 1 when stdout is full", {
  ignore: Deno.build.os !== "linux",
}, async () => {
  const args = [
    "-c",
    'exec "$0" "$@" < /dev/null > /dev/full',
    Deno.execPath(),
    "run",
    "-A",
    MAIN,
    "generate",
    "-n",
    "1",
    "Hi",
  ];
  const { code, stderr } = await new Deno.Command("sh", { args, env: { NO_COLOR: "1" } }).output();
  assertEquals(code, 1);
  assertStringIncludes(
    new TextDecoder().decode(stderr),
    "No space left on device",
  );
});

Deno.test("generate dies by SIGINT after it printed the text so far and the stats", async () => {
  const child = start(["generate", "--device", "cpu", "-n", "20000", "--verbose", "Once upon a time"]);
  await child.stdin.close();
  const stderr = new Response(child.stderr).text();
  const stdout = await readUntil(child.stdout, " ");
  child.kill("SIGINT");
  const { signal } = await child.status;
  assertEquals(signal, "SIGINT");
  assertMatch(await stdout(), /[^\n]\n$/);
  assertMatch(await stderr, /\nfinish +aborted\n$/);
});

Deno.test("generate dies by SIGTERM in the middle of the prefill", async () => {
  const child = start(["generate", "--device", "cpu", "--verbose"]);
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(FILLER.repeat(1800)));
  await writer.close();
  const stderr = await readUntil(child.stderr, "Prompt of");
  child.kill("SIGTERM");
  const [{ signal }, stdout] = await Promise.all([child.status, new Response(child.stdout).text()]);
  assertEquals([signal, stdout], ["SIGTERM", ""]);
  assertMatch(await stderr(), /\nfinish +aborted\n$/);
});

Deno.test("generate tells that it waits for stdin and dies by SIGINT there", async () => {
  const child = start(["generate"]);
  const stderr = await readUntil(child.stderr, "--no-stdin");
  child.kill("SIGINT");
  const { signal } = await child.status;
  assertEquals(signal, "SIGINT");
  assertMatch(await stderr(), /^Waiting .*--no-stdin.*\n$/);
  await Promise.all([child.stdout.cancel(), child.stdin.close().catch(() => {})]);
});

const failures: [name: string, code: number, args: string[], message: RegExp][] = [
  ["a flag out of range", 2, ["--top-p", "1.5", "Hi"], /^Error: --top-p 1\.5 is out of range: .*\n$/],
  ["an unknown flag", 2, ["--tmp", "1", "Hi"], /^Error: Unknown option "--tmp", did you mean "--temp"\?\n$/],
  ["an empty prompt", 2, [], /^Error: Prompt is empty; .*\n$/],
  ["a context above the model's", 2, ["-c", "64k", "Hi"], /^Error: .*\n$/],
  ["a folder that holds no model", 3, ["-m", fromFileUrl(new URL(".", import.meta.url)), "Hi"], /^Error: .*\n$/],
  ["a prompt longer than the context", 4, ["-c", "8", FILLER], /^Error: Prompt is longer than the context: .*\n$/],
];

for (const [name, wanted, args, message] of failures) {
  Deno.test(`generate ends with ${wanted} and one line for ${name}`, async () => {
    const { code, stdout, stderr } = await generate(args);
    assertEquals([code, stdout], [wanted, ""]);
    assertMatch(stderr, message);
  });
}

Deno.test("generate ends with 5 and one line when the library is absent", async () => {
  const { code, stdout, stderr } = await generate(["Hi"], { env: { PAGESIFT_LIBRARY: "/absent/libpagesift.so" } });
  assertEquals([code, stdout], [5, ""]);
  assertMatch(stderr, /^Error: .*\/absent\/libpagesift\.so.*\n$/);
});

Deno.test("generate --device cuda ends with 5 and one line when there is no GPU", async () => {
  const { code, stdout, stderr } = await runProcess(["generate", "--device", "cuda", "Hi"], { env: NO_GPU });
  assertEquals([code, stdout], [5, ""]);
  assertMatch(stderr, /^Error: .*(--device cpu|deno task build).*\n$/);
});

Deno.test("generate --device auto goes on with the CPU and says nothing when there is no GPU", async () => {
  const { code, stdout, stderr } = await runProcess(["generate", "-n", "2", "Hi"], { env: NO_GPU });
  assertEquals([code, stdout.length > 0, stderr], [0, true, ""]);
});

Deno.test("generate --device auto --verbose says why it goes on with the CPU when there is no GPU", async () => {
  const { code, stderr } = await runProcess(["generate", "-v", "-n", "2", "Hi"], { env: NO_GPU });
  assertEquals(code, 0);
  assertMatch(stderr, /^[^:]*CUDA.*; using the CPU$/m);
});

Deno.test("generate --device cuda ends with 5 where PAGESIFT_LIBRARY names a library for the CPU", async () => {
  const { code, stdout, stderr } = await runProcess(["generate", "--device", "cuda", "Hi"], {
    env: { PAGESIFT_LIBRARY: libraryPath("cpu") },
  });
  assertEquals([code, stdout], [5, ""]);
  assertMatch(stderr, /^Error: .*PAGESIFT_LIBRARY.*\n$/);
});

Deno.test("generate --help needs no library", async () => {
  const { code, stdout } = await generate(["--help"], { env: { PAGESIFT_LIBRARY: "/absent/libpagesift.so" } });
  assertEquals(code, 0);
  assertMatch(stdout, /^Usage: pagesift generate/);
});

Deno.test("generate runs a folder with things that it ignores, and names each in one warning", async () => {
  using copy = await hostileModel("llama-f32", async (folder) => {
    json("tokenizer.json", (value) => value.added_tokens.push({ id: 700, content: "<pad>", special: true }))(folder);
    write(INDEX, JSON.stringify({ weight_map: { a: "gone.safetensors" } }))(folder);
    const empty = { dtype: "F32", shape: [0], data_offsets: [0, 0] };
    await header((value) => value["v_head.summary.weight"] = empty)(folder);
  });
  const { code, stdout, stderr } = await runProcess([
    "generate",
    "-m",
    copy.folder,
    "--device",
    "cpu",
    "-n",
    "4",
    "Hi",
  ]);
  assertEquals([code, stdout.length > 0], [0, true], stderr);
  assertEquals(stderr.split("\n").map((line) => /^Warning: Ignored .*(index|v_head|<pad>)/.exec(line)?.[1] ?? line), [
    ...["index", "v_head", "<pad>", ""],
  ]);
});

Deno.test("generate dies by Ctrl-C at once while it reads a long prompt into tokens", async () => {
  const prompt = Deno.makeTempFileSync();
  try {
    Deno.writeTextFileSync(prompt, "The quick brown fox, 123 times over the lazy dog's back.\n".repeat(8_000_000 / 56));
    const child = start(["generate", "--device", "cpu", "-v", "-f", prompt, "--no-stdin"]);
    await child.stdin.close();
    const rest = await readUntil(child.stderr, "Sparse defaults"); // the model is loaded
    await new Promise((resolve) => setTimeout(resolve, 300));
    const started = performance.now();
    child.kill("SIGINT");
    const { signal } = await child.status;
    const seconds = (performance.now() - started) / 1000;
    assertEquals([signal, (await rest()).includes("Error")], ["SIGINT", false]);
    assert(seconds < 5, `${seconds} s`); // reading it into tokens takes half a minute
    await child.stdout.cancel();
  } finally {
    Deno.removeSync(prompt);
  }
});
