import { assertEquals, assertThrows } from "@std/assert";
import { PagesiftError } from "../../engine/errors.ts";
import { PageAllocator } from "../../engine/pages/page_table.ts";
import { NO_TOKEN, Request } from "../../engine/request.ts";
import { Sequence } from "../../engine/pages/sequence.ts";
import { TextStream, type TokenDecoder } from "../../engine/text/text_stream.ts";
import type { GenerateRequest, Piece } from "../../engine/types.ts";

const EOS = 0;
/** Every id is a byte; EOS would be visible if it were decoded. */
const BYTES: TokenDecoder = {
  decode: (ids) => new TextDecoder().decode(Uint8Array.from(ids, (id) => id === EOS ? 0x24 : id)),
  isSilent: () => false,
};

interface Setup {
  request: Request;
  sequence: Sequence;
}

function makeRequest(options: NonNullable<GenerateRequest["options"]> = {}, maxContext = 100): Setup {
  const sequence = new Sequence(new PageAllocator(100), 8);
  sequence.extend(3);
  const limits = { eosTokenIds: [EOS, 1], maxContext };
  return { request: new Request(0, [65, 66, 67], options, new TextStream(BYTES), limits, sequence), sequence };
}

/** The pieces for the bytes of a text, as far as the request takes them. */
function accept(request: Request, text: string): Piece[] {
  const pieces: Piece[] = [];
  for (const id of new TextEncoder().encode(text)) {
    pieces.push(request.accept(id));
    if (request.finished) break;
  }
  return pieces;
}

function textOf(pieces: readonly Piece[]): string {
  return pieces.map(({ text }) => text).join("");
}

Deno.test("Request.accept gives each token with its text", () => {
  assertEquals(accept(makeRequest().request, "ab"), [{ id: 97, text: "a" }, { id: 98, text: "b" }]);
});

Deno.test("Request keeps prompt and generated tokens as its history", () => {
  const { request } = makeRequest();
  accept(request, "ab");
  assertEquals([request.history, request.lastId], [[65, 66, 67, 97, 98], 98]);
});

for (const eos of [EOS, 1]) {
  Deno.test(`Request.accept ends at EOS id ${eos} without its text`, () => {
    assertEquals(makeRequest().request.accept(eos), { id: eos, text: "", finish: "stop" });
  });
}

Deno.test("Request.accept cuts at a stop string that spans tokens", () => {
  const pieces = accept(makeRequest({ stop: ["bcd"] }).request, "abcdef");
  assertEquals([textOf(pieces), pieces.at(-1)], ["a", { id: 100, text: "", finish: "stop" }]);
});

Deno.test("Request.accept gives the beginning of a stop string once it is none", () => {
  const pieces = accept(makeRequest({ stop: ["bcd"] }).request, "abcx");
  assertEquals(pieces.map(({ text }) => text), ["a", "", "", "bcx"]);
});

Deno.test("Request.accept gives the beginning of a stop string when EOS follows", () => {
  const { request } = makeRequest({ stop: ["bcd"] });
  accept(request, "abc");
  assertEquals(request.accept(EOS), { id: EOS, text: "bc", finish: "stop" });
});

Deno.test("Request.accept ends after maxTokens tokens with the text of all of them", () => {
  const pieces = accept(makeRequest({ maxTokens: 3 }).request, "abcdef");
  assertEquals([textOf(pieces), pieces.length, pieces.at(-1)?.finish], ["abc", 3, "length"]);
});

Deno.test("Request.accept gives the beginning of a stop string at the last token", () => {
  const pieces = accept(makeRequest({ maxTokens: 3, stop: ["bcd"] }).request, "abcdef");
  assertEquals([textOf(pieces), pieces.at(-1)], ["abc", { id: 99, text: "bc", finish: "length" }]);
});

Deno.test("Request.accept finds a stop string that the last token completes", () => {
  const pieces = accept(makeRequest({ maxTokens: 3, stop: ["bc"] }).request, "abcdef");
  assertEquals([textOf(pieces), pieces.at(-1)?.finish], ["a", "stop"]);
});

Deno.test("Request.accept flushes an open character as one U+FFFD at the last token", () => {
  const pieces = accept(makeRequest({ maxTokens: 3 }).request, "a€");
  assertEquals([textOf(pieces), pieces.at(-1)?.text], ["a\uFFFD", "\uFFFD"]);
});

Deno.test("Request.accept ends when the next token would not fit the context", () => {
  const { request, sequence } = makeRequest({}, 5);
  assertEquals(request.accept(97), { id: 97, text: "a" });
  sequence.extend(1);
  assertEquals(request.accept(98), { id: 98, text: "b" });
  sequence.extend(1);
  assertEquals(request.accept(99), { id: 99, text: "c", finish: "context" });
});

Deno.test("Request.accept prefers the reason that the caller chose at the end of the context", () => {
  assertEquals(makeRequest({ maxTokens: 1 }, 3).request.accept(97).finish, "length");
});

Deno.test("Request.abort gives what was held back and no token", () => {
  const { request } = makeRequest({ stop: ["bcd"] });
  accept(request, "abc");
  assertEquals(request.abort(), { id: NO_TOKEN, text: "bc", finish: "aborted" });
});

Deno.test("Request.finished turns true with the closing piece", () => {
  const { request } = makeRequest({ maxTokens: 2 });
  request.accept(97);
  assertEquals(request.finished, false);
  request.accept(98);
  assertEquals(request.finished, true);
});

Deno.test("Request.greedy holds only where the most likely token decides", () => {
  const greedy = [{}, { temperature: 0 }, { temperature: 1 }, { repeatPenalty: 1.1 }].map((options) =>
    makeRequest(options).request.greedy
  );
  assertEquals(greedy, [true, true, false, false]);
});

Deno.test("Request refuses options that no sampler takes", () => {
  assertEquals(assertThrows(() => makeRequest({ topP: 2 }), PagesiftError).kind, "usage");
});
