/** What a process meets from outside: permissions that were not given, libraries of another make, signals, full disks. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { Output } from "../../cli/output.ts";
import { symbols } from "../../ffi/symbols.ts";
import { FakeWorld } from "./fake_world.ts";

const MAIN = fromFileUrl(new URL("../../cli/main.ts", import.meta.url));
const LONG = "It was a bright morning and the ships lay quietly in the harbour. ".repeat(1500);
const MEDIUM = LONG.slice(0, 6000);
const LINUX = Deno.build.os === "linux";

function command(permissions: string[], args: string[], env: Record<string, string> = {}): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", ...permissions, MAIN, "generate", "--device", "cpu", ...args],
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

async function refusal(made: Deno.Command, wanted: number, part: string | RegExp): Promise<void> {
  const { code, stdout, stderr } = await made.output();
  const text = new TextDecoder().decode(stderr);
  assertEquals([code, stdout.length], [wanted, 0], text);
  assertMatch(text, /^Error: [^\n]*\n$/);
  if (typeof part === "string") assertStringIncludes(text, part);
  else assertMatch(text, part);
}

const READS = ["--allow-read", "--allow-env"];

Deno.test("generate ends with 5 and one line where --allow-ffi was not given", async () => {
  await refusal(command(READS, ["Hi"]), 5, /libpagesift_cpu\.(so|dylib)" could not be opened \(.*ffi/);
});

Deno.test("generate needs no more than read, env and ffi for a model on this machine", async () => {
  const { code, stdout, stderr } = await command([...READS, "--allow-ffi"], ["-n", "2", "Hi"]).output();
  assertEquals([code, new TextDecoder().decode(stderr), stdout.length > 0], [0, "", true]);
});

Deno.test("systemWorld gives the network back once the folder of the model is known", async () => {
  const world = new URL("../../cli/system_world.ts", import.meta.url);
  const script = `import { systemWorld } from "${world}";
    const net = async () => (await Deno.permissions.query({ name: "net" })).state;
    const before = await net();
    await systemWorld(() => {}).models.findModelFolder(".", {});
    console.log(before, await net());`;
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["eval", "--ext=ts", script] }).output();
  assertEquals(new TextDecoder().decode(stdout), "granted prompt\n");
});

/** A library whose every function answers 99. */
async function strangeLibrary(folder: string): Promise<string> {
  const source = join(folder, "strange.cpp");
  const bodies = Object.keys(symbols).map((name) => `extern "C" int ${name}() { return 99; }`);
  await Deno.writeTextFile(source, bodies.join("\n"));
  const library = join(folder, "strange.so");
  const compiler = Deno.env.get("CXX") || "g++";
  const { success } = await new Deno.Command(compiler, { args: ["-shared", "-fPIC", source, "-o", library] }).output();
  assert(success);
  return library;
}

Deno.test("generate ends with 5 for a library of another ABI and says which", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const PAGESIFT_LIBRARY = await strangeLibrary(folder);
    await refusal(command(["-A"], ["Hi"], { PAGESIFT_LIBRARY }), 5, /strange\.so" has ABI version 99/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("generate ends with 5 for a file that is no library", async () => {
  await refusal(command(["-A"], ["Hi"], { PAGESIFT_LIBRARY: MAIN }), 5, /main\.ts" could not be opened/);
});

/** Sends signals once stderr told of a stage; gives how the process ended. */
async function signalled(prompt: string, stage: string, signals: Deno.Signal[]): Promise<Deno.CommandStatus> {
  const child = command(["-A"], ["--verbose", "-n", "20000", prompt]).spawn();
  let seen = "";
  const decoder = new TextDecoder();
  const stdout = new Response(child.stdout).arrayBuffer();
  for await (const piece of child.stderr) {
    const before = seen.includes(stage);
    seen += decoder.decode(piece, { stream: true });
    if (!before && seen.includes(stage)) { for (const signal of signals) child.kill(signal); }
  }
  await stdout;
  assertStringIncludes(seen, stage);
  assert(!/Error|at file:|Uncaught/.test(seen), seen);
  return await child.status;
}

for (
  const [stage, prompt, shown, signals] of [
    ["loading", LONG, "Loading", ["SIGHUP"]],
    ["loading", LONG, "Loading", ["SIGINT"]],
    ["loading", LONG, "Loading", ["SIGTERM"]],
    ["prefill", LONG, "Prompt of", ["SIGHUP"]],
    ["prefill", LONG, "Prompt of", ["SIGINT", "SIGINT"]],
    ["decode", MEDIUM, "Read prompt", ["SIGTERM"]],
    ["decode, twice over", MEDIUM, "Read prompt", ["SIGHUP", "SIGHUP"]],
  ] as const
) {
  Deno.test(`generate dies by ${signals[0]} in ${stage}`, { ignore: Deno.build.os === "windows" }, async () => {
    assertEquals((await signalled(prompt, shown, [...signals])).signal, signals[0]);
  });
}

for (const args of [["--json"], ["--no-stream"], ["--help"]]) {
  Deno.test(`generate ${args.join(" ")} ends with 1 and one line on a full disk`, { ignore: !LINUX }, async () => {
    const shell = ["-c", 'exec "$@" > /dev/full < /dev/null', "sh", Deno.execPath(), "run", "-A", MAIN, "generate"];
    const { code, stderr } = await new Deno.Command("sh", {
      args: [...shell, "--device", "cpu", "-n", "2", ...args, "Hi"],
      env: { NO_COLOR: "1" },
    }).output();
    assertEquals(code, 1);
    assertMatch(new TextDecoder().decode(stderr), /^Error: .*No space left .*\n$/);
  });
}

Deno.test("Output fits its progress line to a terminal that was resized", () => {
  const world = new FakeWorld();
  world.stderr.terminal = true;
  let width = 60;
  world.columns = () => width;
  const output = new Output(world);
  output.status("x".repeat(100));
  width = 20;
  output.status("y".repeat(100));
  assertEquals(world.stderr.text.match(/[xy]+/g)?.map((line) => line.length), [59, 19]);
});
