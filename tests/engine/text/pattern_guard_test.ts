import { assertEquals, assertLess, assertMatch } from "@std/assert";
import { findPatternProblem, patternProblem } from "../../../engine/text/pattern_guard.ts";

/** Patterns of published tokenizers: GPT-2, Llama 3, Qwen, o200k, cl100k, DeepSeek, StarCoder, digits by threes, CJK runs. */
const REAL = [
  String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
  String
    .raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  String
    .raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  String
    .raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{M}]*[\p{Ll}\p{Lm}\p{M}]+(?i:'s|'t|'re|'ve)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+`,
  String
    .raw`'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s`,
  String
    .raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+`,
  String
    .raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{M}]+[\p{Ll}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*`,
  String.raw`\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))`,
  String.raw` ?[^(\s|[.,!?])]+`,
  String.raw`[一-龥぀-ゟ゠-ヿ]+`,
  "[^\\]()|*+]+",
  "\\(\\w+\\)+",
];

for (const source of REAL) {
  Deno.test(`patternProblem takes ${source}`, () => assertEquals(patternProblem(source), undefined));
}

for (
  const source of [
    "(a+)+$",
    "(?:a*)*b",
    "(a|a)*b",
    "(a|aa)+!",
    "(?<n>\\w+\\s?)*$",
    "((a{1,9}){1,9}){1,9}b",
    "(x(y?)){2,}",
    "([a-z]+,?)+;",
    "(?:a|(b))+?c",
    "\\w*\\w*\\w*\\w*!",
    "a*a*a*!",
    "(a*)(a*)(a*)!",
    "(?:(a*)a*)(?:x|a*)!",
    "a?".repeat(30) + "a".repeat(30),
    "(a|aa)".repeat(30) + "!",
    "a{0,99}a{0,99}a{0,99}!",
    "(a?(a|b)?){1}".repeat(9) + "!",
    "(".repeat(40),
  ]
) {
  Deno.test(`patternProblem refuses ${source}`, () => assertMatch(patternProblem(source) ?? "", /^its? /));
}

Deno.test("patternProblem looks at a long pattern once", () => {
  const started = performance.now();
  patternProblem("[".repeat(1_000_000));
  patternProblem("(?:a)".repeat(200_000));
  assertLess(performance.now() - started, 2000);
});

Deno.test("findPatternProblem finds a pattern wherever it stands", () => {
  const bad = { type: "Sequence", normalizers: [{ type: "NFC" }, { pattern: { Regex: "(a+)+" }, content: "" }] };
  assertMatch(findPatternProblem([null, bad]) ?? "", /repeats a group/);
  assertEquals(findPatternProblem([{ pattern: { String: "(a+)+" } }]), undefined);
});
