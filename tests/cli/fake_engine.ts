import type { BatchOptions, EnginePort, LoadOptions, TokenizerPort } from "../../cli/engine_port.ts";
import type {
  BatchPiece,
  EngineStats,
  GenerateOptions,
  GenerateRequest,
  Notice,
  Piece,
  SamplingOptions,
} from "../../engine/types.ts";

/** Id that stands for the special token `<s>`. */
export const BEGIN_ID = 0x110000;

/** One token a character, `<s>` in front when special tokens are added, and a chat template of angle brackets. */
export const fakeTokenizer: TokenizerPort = {
  hasChatTemplate: true,
  switchesThinking: true,
  encode: (text, { addSpecialTokens = true, parseSpecial = false } = {}) => {
    const parts = parseSpecial ? text.split("<s>") : [text];
    const ids = parts.flatMap((part, index) => [...index > 0 ? [BEGIN_ID] : [], ...codePoints(part)]);
    return addSpecialTokens ? [BEGIN_ID, ...ids] : ids;
  },
  decode: (ids) => ids.map((id) => id === BEGIN_ID ? "<s>" : String.fromCodePoint(id)).join(""),
  encodeChat: (messages, { enableThinking } = {}) => {
    const text = messages.map(({ role, content }) => `<${role}>${content}`).join("");
    return codePoints(`${text}<assistant>${enableThinking === undefined ? "" : `<thinking ${enableThinking}>`}`);
  },
};

/** Says prepared pieces and remembers what it was asked. */
export class FakeEngine implements EnginePort {
  tokenizer = fakeTokenizer;
  sparsity = undefined;
  sampling: SamplingOptions = {};
  config = { maxContext: 1000 };
  notices: Notice[] = [];
  stats: EngineStats = { ...fakeStats };
  pieces: Piece[] = [{ id: 72, text: "Hello" }, { id: 87, text: " world", finish: "stop" }];
  /** Pieces of a batch instead of the prepared ones for each request. */
  batchPieces: BatchPiece[] | undefined;
  prompts: string[] = [];
  options: GenerateOptions | undefined;
  batchOptions: BatchOptions | undefined;
  requests: readonly GenerateRequest[] = [];
  loaded: LoadOptions | undefined;
  disposed = false;
  /** Runs before each piece. */
  beforePiece: (index: number) => void = () => {};

  async *generate(prompt: string | readonly number[], options: GenerateOptions = {}): AsyncGenerator<Piece> {
    this.prompts.push(this.tokenizer.decode(prompt as readonly number[]));
    this.options = options;
    for (const [index, piece] of this.pieces.entries()) {
      this.beforePiece(index);
      await Promise.resolve();
      if (options.signal?.aborted) return yield { id: -1, text: "", finish: "aborted" };
      yield piece;
    }
  }

  async *generateBatch(
    source: readonly GenerateRequest[] | AsyncIterable<GenerateRequest>,
    options: BatchOptions = {},
  ): AsyncGenerator<BatchPiece> {
    this.batchOptions = options;
    const requests: GenerateRequest[] = [];
    for await (const request of source) requests.push(request);
    this.requests = requests;
    this.prompts = requests.map(({ prompt }) => this.tokenizer.decode(prompt as number[]));
    const pieces = this.batchPieces ??
      requests.flatMap((_, index) => this.pieces.map((piece) => ({ ...piece, index })));
    for (const [index, piece] of pieces.entries()) {
      this.beforePiece(index);
      await Promise.resolve();
      if (options.signal?.aborted) return;
      yield piece;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.disposed = true;
    return Promise.resolve();
  }
}

function codePoints(text: string): number[] {
  return [...text].map((character) => character.codePointAt(0)!);
}

const fakeStats: EngineStats = {
  device: "cpu (2 threads)",
  promptTokens: 8192,
  reusedTokens: 0,
  prefillTokens: 8192,
  prefillSeconds: 4,
  decodeTokens: 50,
  decodeSeconds: 2,
  firstTokenSeconds: 4.25,
  decodeSteps: 50,
  selectedSteps: 49,
  pagesRead: 1024,
  pagesDense: 16384,
  bytesRead: 1048576,
  bytesDense: 16777216,
  promptPagesRead: 0,
  promptPagesDense: 0,
  statisticsBytes: 524288,
  peakKvBytes: 33554432,
  weightBytes: 16777216,
  contextTokens: 8242,
  maxContext: 32768,
  finishReason: "stop",
};
