/** llama.cpp as a child process. */
import { fromFileUrl } from "@std/path";
import { type Build, install, PACKAGE_VERSION } from "./install.ts";
import type { ContextOptions, FileType } from "./shim.ts";

/** A request's answer: numbers, texts, lists. */
type Answer = Record<string, unknown>;

/** A loaded model in a child process. One request runs at a time. */
export class LlamaCpp implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: ReadableStreamDefaultReader<string>;
  #rest = "";
  /** What was loaded, for people. */
  program = "";
  /** Instruction sets and such, as llama.cpp says them. */
  system = "";

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#writer = child.stdin.getWriter();
    this.#lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Installs llama.cpp where it is missing and loads a GGUF file. */
  static async start(gguf: string, build: Build = "cpu"): Promise<LlamaCpp> {
    const { shim, libraries, release } = await install(build);
    const client = LlamaCpp.#spawn();
    const request = { shim, libraries, gguf: Deno.realPathSync(gguf), gpu: build === "cuda" };
    const { system } = await client.#ask("load", request);
    client.program = `llama.cpp ${release} (node-llama-cpp ${PACKAGE_VERSION})`;
    client.system = String(system);
    return client;
  }

  /** Writes a model with quantised weights, as llama.cpp's own program does. */
  static async quantize(gguf: string, target: string, type: FileType): Promise<void> {
    const { shim, libraries } = await install("cpu");
    await using client = LlamaCpp.#spawn();
    await client.#ask("quantize", { shim, libraries, gguf: Deno.realPathSync(gguf), target, type });
  }

  static #spawn(): LlamaCpp {
    const args = ["run", "-A", "--no-lock", fromFileUrl(new URL("worker.ts", import.meta.url))];
    return new LlamaCpp(new Deno.Command(Deno.execPath(), { args, stdin: "piped", stdout: "piped" }).spawn());
  }

  /** The process, whose time does not count as that of other programs. */
  get pid(): number {
    return this.#child.pid;
  }

  /** Opens a context under a name. Returns the threads that it really has. */
  async open(id: string, options: ContextOptions): Promise<number> {
    return Number((await this.#ask("open", { id, ...options }))["threads"]);
  }

  /** Takes ids in behind the first `at` tokens, in chunks. Returns seconds. */
  async append(id: string, at: number, ids: readonly number[]): Promise<number> {
    return Number((await this.#ask("append", { id, at, ids }))["seconds"]);
  }

  /** Feeds ids one by one behind the first `at` tokens; the first warms up. Returns seconds of all others together. */
  async decode(id: string, at: number, ids: readonly number[]): Promise<number> {
    return Number((await this.#ask("decode", { id, at, ids }))["seconds"]);
  }

  /** Logits after ids that follow the first `at` tokens, `[V]`. */
  async logits(id: string, at: number, ids: readonly number[]): Promise<Float32Array> {
    return Float32Array.from((await this.#ask("logits", { id, at, ids }))["logits"] as number[]);
  }

  async tokenize(text: string): Promise<number[]> {
    return (await this.#ask("tokenize", { text }))["ids"] as number[];
  }

  async #ask(operation: string, request: Answer): Promise<Answer> {
    await this.#writer.write(new TextEncoder().encode(`${JSON.stringify({ operation, ...request })}\n`));
    const answer = JSON.parse(await this.#line()) as Answer;
    if (answer["error"] !== undefined) throw new Error(`llama.cpp: ${answer["error"]}`);
    return answer;
  }

  async #line(): Promise<string> {
    while (!this.#rest.includes("\n")) {
      const { value, done } = await this.#lines.read();
      if (done) throw new Error("llama.cpp ended without an answer");
      this.#rest += value;
    }
    const end = this.#rest.indexOf("\n");
    const line = this.#rest.slice(0, end);
    this.#rest = this.#rest.slice(end + 1);
    return line;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close().catch(() => {});
    await this.#child.status;
    await this.#lines.cancel();
  }
}
