/** llama.cpp as a child process. */
import { fromFileUrl } from "@std/path";
import { type Build, install, PACKAGE_VERSION } from "./install.ts";
import type { ContextOptions, FileType } from "./shim.ts";

/** The answer to a request: numbers, texts, lists. */
type Answer = Record<string, unknown>;

/** A loaded model in a child process. One request runs at a time. */
export class LlamaCpp implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: ReadableStreamDefaultReader<string>;
  #rest = "";
  /** Description of the loaded program. */
  program = "";
  /** Instruction sets and similar, as llama.cpp reports them. */
  system = "";

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#writer = child.stdin.getWriter();
    this.#lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Installs llama.cpp if it is missing and loads a GGUF file. */
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

  /** Opens a context under a name. Returns its actual number of threads. */
  async open(id: string, options: ContextOptions): Promise<number> {
    return Number((await this.#ask("open", { id, ...options }))["threads"]);
  }

  /** Appends ids after the first `at` tokens, in chunks. Returns seconds. */
  async append(id: string, at: number, ids: readonly number[]): Promise<number> {
    return Number((await this.#ask("append", { id, at, ids }))["seconds"]);
  }

  /**
   * Decodes ids one by one after the first `at` tokens; the first is a warm-up. Returns the total seconds of the
   * others.
   */
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
