/** llama.cpp behind a pipe, in a process of its own: a JSON request a line in, a JSON answer a line out. */
import { type ContextOptions, type FileType, LoadedContext, LoadedModel, quantizeFile } from "./shim.ts";

/** All fields of a request. */
interface Request extends ContextOptions {
  operation: keyof typeof OPERATIONS;
  shim: string;
  libraries: string;
  gguf: string;
  gpu: boolean;
  /** Of a quantised file. */
  target: string;
  type: FileType;
  /** Of a context. */
  id: string;
  /** Tokens that stay in the cache. */
  at: number;
  ids: number[];
  text: string;
}

let model: LoadedModel | undefined;
const contexts = new Map<string, LoadedContext>();

function loaded(): LoadedModel {
  if (!model) throw new Error("No model is loaded");
  return model;
}

function contextOf({ id }: Request): LoadedContext {
  const context = contexts.get(id);
  if (!context) throw new Error(`No context "${id}"`);
  return context;
}

function timed(work: () => void): { seconds: number } {
  const started = performance.now();
  work();
  return { seconds: (performance.now() - started) / 1000 };
}

const OPERATIONS = {
  load: ({ shim, libraries, gguf, gpu }: Request): unknown => {
    model = new LoadedModel(shim, libraries, gguf, gpu);
    return { system: model.system() };
  },
  quantize: ({ shim, libraries, gguf, target, type }: Request): unknown => {
    quantizeFile(shim, libraries, gguf, target, type);
    return {};
  },
  open: (request: Request): unknown => {
    const context = loaded().open(request);
    contexts.set(request.id, context);
    return { threads: context.threads };
  },
  append: (request: Request): unknown => timed(() => contextOf(request).append(request.at, request.ids)),
  decode: (request: Request): unknown => {
    const { at, ids } = request;
    contextOf(request).decode(at, ids.slice(0, 1)); // warm-up
    return timed(() => contextOf(request).decode(at + 1, ids.slice(1)));
  },
  logits: (request: Request): unknown => {
    contextOf(request).append(request.at, request.ids);
    return { logits: [...contextOf(request).logits()] };
  },
  tokenize: ({ text }: Request): unknown => ({ ids: loaded().tokenize(text) }),
};

/** An answer, or an error. */
function answer(line: string): unknown {
  try {
    const request = JSON.parse(line) as Request;
    return OPERATIONS[request.operation](request);
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

let rest = "";
for await (const piece of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + piece).split("\n");
  rest = lines.pop() ?? "";
  for (const line of lines) Deno.stdout.writeSync(new TextEncoder().encode(`${JSON.stringify(answer(line))}\n`));
}
for (const context of contexts.values()) context.close();
