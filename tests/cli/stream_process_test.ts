/** Programs that drive `generate --jsonl -` through its pipes, with the real engine and the shipped model. */
import { assertEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";

const MAIN = fromFileUrl(new URL("../../cli/main.ts", import.meta.url));

/** A running `generate --jsonl -` that gets its lines one by one. */
class Driver implements AsyncDisposable {
  readonly child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #output: ReadableStreamDefaultReader<string>;
  #text = "";

  constructor(...args: string[]) {
    this.child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", MAIN, "generate", "--jsonl", "-", "--device", "cpu", ...args],
      stdin: "piped",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    this.#input = this.child.stdin.getWriter();
    this.#output = this.child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  async send(line: Record<string, unknown>): Promise<void> {
    await this.#input.write(new TextEncoder().encode(JSON.stringify(line) + "\n"));
  }

  /** The `id` of the next line of the output; undefined at the end. */
  async nextId(): Promise<unknown> {
    while (!this.#text.includes("\n")) {
      const { value, done } = await this.#output.read();
      if (done) return undefined;
      this.#text += value;
    }
    const end = this.#text.indexOf("\n");
    const { id } = JSON.parse(this.#text.slice(0, end));
    this.#text = this.#text.slice(end + 1);
    return id;
  }

  async end(): Promise<void> {
    await this.#input.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input.close().catch(() => {});
    await this.#output.cancel();
    await this.child.status;
  }
}

const LONG = { id: "long", prompt: "Once upon a time", max_tokens: 400 };
const SHORT = { id: "short", prompt: "The old captain", max_tokens: 2 };

Deno.test("generate --jsonl - answers a line before the next one is written, and ends with its input", async () => {
  await using driver = new Driver();
  const ids: unknown[] = [];
  for (const id of ["a", "b", "c"]) {
    await driver.send({ ...SHORT, id });
    ids.push(await driver.nextId());
  }
  await driver.end();
  assertEquals([...ids, await driver.nextId()], ["a", "b", "c", undefined]);
  assertEquals(await driver.child.status, { success: true, code: 0, signal: null });
});

Deno.test("generate --jsonl - answers a short prompt before a long answer that began earlier", async () => {
  await using driver = new Driver();
  await driver.send(LONG);
  await driver.send(SHORT);
  assertEquals([await driver.nextId(), await driver.nextId()], ["short", "long"]);
});

Deno.test("generate --jsonl - --ordered answers in the order of the lines", async () => {
  await using driver = new Driver("--ordered");
  await driver.send(LONG);
  await driver.send(SHORT);
  assertEquals([await driver.nextId(), await driver.nextId()], ["long", "short"]);
});

Deno.test("generate --jsonl - continues after a line that it refuses, and ends with 2", async () => {
  await using driver = new Driver();
  await driver.send({ id: "bad", prompt: 7 });
  assertEquals(await driver.nextId(), "bad");
  await driver.send(SHORT);
  assertEquals(await driver.nextId(), "short");
  await driver.end();
  assertEquals((await driver.child.status).code, 2);
});

Deno.test("generate --jsonl - dies by SIGINT while it waits for a line", async () => {
  await using driver = new Driver();
  await driver.send(SHORT);
  await driver.nextId();
  driver.child.kill("SIGINT");
  assertEquals((await driver.child.status).signal, "SIGINT");
});

Deno.test("generate --jsonl - prints the lines of answers that SIGTERM ends", async () => {
  await using driver = new Driver();
  await driver.send({ ...LONG, max_tokens: 20_000 });
  await driver.send(SHORT);
  await driver.nextId();
  driver.child.kill("SIGTERM");
  assertEquals([await driver.nextId(), (await driver.child.status).signal], ["long", "SIGTERM"]);
});
