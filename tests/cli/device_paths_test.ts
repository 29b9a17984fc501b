/** Paths under /dev, /proc and /sys, with the permissions that the program has when users run it. */
import { assertEquals, assertMatch } from "@std/assert";
import { fromFileUrl } from "@std/path";
import denoConfig from "../../deno.json" with { type: "json" };
import { fixtureFolder } from "../support/fixture_model.ts";

const MAIN = fromFileUrl(new URL("../../cli/main.ts", import.meta.url));
const PERMISSIONS = denoConfig.tasks.pagesift.split(" && ").at(-1)!.split(" ").filter((word) =>
  /^--(allow|no-prompt)/.test(word)
);
const MODEL = fixtureFolder("llama-f32");

interface Result {
  code: number;
  stdout: string;
  stderr: string;
}

async function run(
  args: string[],
  { stdin = "", env = {} }: { stdin?: string; env?: Record<string, string> } = {},
): Promise<Result> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", ...PERMISSIONS, "--no-check", MAIN, ...args],
    env: { NO_COLOR: "1", CUDA_VISIBLE_DEVICES: "-1", ...env },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(stdin)).catch(() => {});
  await writer.close().catch(() => {});
  const { code, stdout, stderr } = await child.output();
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

function test(name: string, body: () => Promise<void>): void {
  Deno.test(name, { ignore: Deno.build.os !== "linux" }, body);
}

for (const path of ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"]) {
  test(`generate -f ${path} reads stdin`, async () => {
    const named = await run(["generate", "-m", MODEL, "-n", "3", "-f", path], { stdin: "One two three" });
    const plain = await run(["generate", "-m", MODEL, "-n", "3", "-f", "-"], { stdin: "One two three" });
    assertEquals(named, plain);
    assertEquals(plain.code, 0);
  });
}

test("generate --jsonl /dev/stdin reads stdin", async () => {
  const { code, stdout } = await run(["generate", "-m", MODEL, "--jsonl", "/dev/stdin"], {
    stdin: '{"prompt":"a","max_tokens":1}',
  });
  assertEquals([code, stdout.split("\n").length], [0, 2]);
});

const REFUSED: [name: string, code: number, args: string[], env?: Record<string, string>][] = [
  ["a prompt file", 2, ["generate", "-m", MODEL, "-f", "/dev/shm/prompt.txt"]],
  ["a file of lines", 2, ["generate", "-m", MODEL, "--jsonl", "/dev/shm/lines.jsonl"]],
  ["a model", 3, ["generate", "-m", "/dev/shm/model", "Hi"]],
  ["PAGESIFT_MODEL", 3, ["generate", "Hi"], { PAGESIFT_MODEL: "/dev/shm/model" }],
  ["a hub cache", 7, ["generate", "-m", "some/model", "--offline", "Hi"], { HF_HUB_CACHE: "/dev/shm/hub" }],
  ["a trace", 2, ["inspect-pages", "-m", MODEL, "--trace", "/dev/shm/t.trace", "Hi"]],
  ["a page", 2, ["inspect-pages", "-m", MODEL, "--html", "/dev/shm/t.html", "Hi"]],
  ["a trace to replay", 2, ["inspect-pages", "--replay", "/dev/shm/t.trace"]],
  ["a plot", 2, ["bench", "attention", "--plot", "/dev/shm/p.svg"]],
  ["a full device as plot", 2, ["bench", "attention", "--plot", "/dev/full"]],
  ["rows of peers", 2, ["bench", "attention", "--peers", "/dev/shm/p.jsonl"]],
];
for (const [name, code, args, env = {}] of REFUSED) {
  test(`pagesift names a way out for ${name} under /dev`, async () => {
    const result = await run(args, { env });
    assertEquals([result.code, result.stdout], [code, ""]);
    assertMatch(result.stderr, /^Error: [^\n]*(another folder|plain file)[^\n]*\n$/);
  });
}
