import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { parseJsonObject } from "../../../engine/folder/json_file.ts";
import { PagesiftError } from "../../../engine/errors.ts";

function assertRefused(text: string, ...parts: string[]): void {
  const error = assertThrows(() => parseJsonObject(text, "config.json"), PagesiftError);
  assertEquals(error.kind, "model");
  for (const part of ["config.json", ...parts]) assertStringIncludes(error.message, part);
}

Deno.test("parseJsonObject accepts the numbers that only Python's JSON has", () => {
  const text = '{"a": NaN, "b": [Infinity, -Infinity,NaN], "c": {"d":-Infinity}, "e": -1}';
  const expected = { a: NaN, b: [Infinity, -Infinity, NaN], c: { d: -Infinity }, e: -1 };
  assertEquals(parseJsonObject(text, "config.json"), expected);
});

Deno.test("parseJsonObject leaves strings and keys alone that read like such numbers", () => {
  const text = '{"NaN": "Infinity", "x": "-Infinity\\"NaN", "y": Infinity}';
  const expected = { NaN: "Infinity", x: '-Infinity"NaN', y: Infinity };
  assertEquals(parseJsonObject(text, "config.json"), expected);
});

Deno.test("parseJsonObject takes __proto__ for a key like any other beside such a number", () => {
  assertEquals(Object.entries(parseJsonObject('{"__proto__": NaN}', "config.json")), [["__proto__", NaN]]);
});

for (
  const text of [
    "NaN",
    "{NaN: 1}",
    '{"a": -NaN}',
    '{"a": +Infinity}',
    '{"a": 1Infinity}',
    '{"a": Infinity1}',
    '{"a": NaNNaN}',
    '{"a": nan}',
    '{"a": inf}',
    '{"a": undefined}',
    '{"a": --Infinity}',
    '{"a" NaN}',
  ]
) {
  Deno.test(`parseJsonObject refuses ${text}, as Python does`, () => assertRefused(text));
}

Deno.test("parseJsonObject reads lines that end with CRLF", () => {
  assertEquals(parseJsonObject('{\r\n"a": 1\r\n}\r\n', "config.json"), { a: 1 });
});

Deno.test("parseJsonObject finds a repeated key beside such a number", () => {
  assertRefused('{"a": NaN, "a": Infinity}', '"a" appears twice');
});

Deno.test("parseJsonObject takes a million such numbers in seconds", () => {
  const started = performance.now();
  const { a } = parseJsonObject(`{"a": [${"NaN,".repeat(1_000_000)}-Infinity]}`, "config.json");
  assertEquals((a as number[]).length, 1_000_001);
  assert(performance.now() - started < 60_000); // on a busy machine, too
});
