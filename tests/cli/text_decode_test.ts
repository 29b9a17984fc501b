import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { checkText, decodeText } from "../../cli/text_decode.ts";
import { PagesiftError } from "../../engine/errors.ts";

function assertRefused(bytes: number[], message: string): void {
  const error = assertThrows(() => decodeText(new Uint8Array(bytes), "It", false), PagesiftError);
  assertEquals(error.kind, "usage");
  assertStringIncludes(error.message, message);
}

Deno.test("decodeText() decodes characters of every length", () => {
  const text = "a\u00e9\u20ac\u{1f600}\uffff\u{10ffff}";
  assertEquals(decodeText(new TextEncoder().encode(text), "It", false), { text, replaced: 0 });
});

const invalid: [name: string, bytes: number[], offset: string][] = [
  ["a lone continuation byte", [0x80], "0"],
  ["an overlong form of two bytes", [0x41, 0xc0, 0xaf], "1"],
  ["an overlong form of three bytes", [0xe0, 0x80, 0x80], "0"],
  ["an overlong form of four bytes", [0xf0, 0x80, 0x80, 0x80], "0"],
  ["an encoded surrogate", [0x41, 0x42, 0xed, 0xa0, 0x80], "2"],
  ["a code past the last one", [0xf4, 0x90, 0x80, 0x80], "0"],
  ["a character cut off by the end", [0x41, 0xe2, 0x82], "1"],
  ["a character cut off by another", [0xe2, 0x82, 0x41], "0"],
  ["a byte after whole characters", [0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0xfe], "9"],
];

for (const [name, bytes, offset] of invalid) {
  Deno.test(`decodeText() gives the offset of ${name}`, () => {
    assertRefused(bytes, `0x${bytes[Number(offset)]!.toString(16)} at offset ${offset};`);
  });
}

Deno.test("decodeText() gives the offset of a NUL byte", () => assertRefused([65, 66, 0], "NUL byte at offset 2"));

Deno.test("decodeText() gives the first of a NUL byte and an invalid one", () => {
  assertRefused([65, 0, 0xff], "NUL byte at offset 1");
});

Deno.test("decodeText() knows gzip data", () => {
  assertRefused([0x1f, 0x8b, 8, 0], "gunzip -c");
});

Deno.test("decodeText() knows UTF-16", () => {
  assertRefused([0xff, 0xfe, 65, 0], "UTF-16");
});

Deno.test("decodeText() lossy counts only the characters that it replaced", () => {
  const bytes = new Uint8Array([...new TextEncoder().encode("\uFFFD"), 0xff, 65]);
  assertEquals(decodeText(bytes, "It", true), { text: "\uFFFD\uFFFDA", replaced: 1 });
});

Deno.test("checkText() refuses half a surrogate pair", () => {
  assertThrows(() => checkText("a\ud800", "It", false), PagesiftError, "surrogate");
});

Deno.test("checkText() lossy replaces half a surrogate pair", () => {
  assertEquals(checkText("a\ud800", "It", true), { text: "a\uFFFD", replaced: 1 });
});
