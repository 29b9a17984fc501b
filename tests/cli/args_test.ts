import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { parseArguments } from "../../cli/args.ts";
import { type GenerateFlags, generateOptions } from "../../cli/options/generate.ts";
import { PagesiftError } from "../../engine/errors.ts";

function parse(...args: string[]): GenerateFlags {
  return parseArguments(generateOptions, args).values;
}

function words(...args: string[]): string[] {
  return parseArguments(generateOptions, args).positional;
}

function assertRefused(args: string[], ...keywords: string[]): void {
  const error = assertThrows(() => parse(...args), PagesiftError);
  assertEquals(error.kind, "usage");
  for (const keyword of keywords) assertStringIncludes(error.message, keyword);
}

Deno.test("parseArguments() takes a value after a space", () => assertEquals(parse("--temp", "0.5").temperature, 0.5));

Deno.test("parseArguments() takes a value after an equals sign", () =>
  assertEquals(parse("--temp=0.5").temperature, 0.5));

Deno.test("parseArguments() takes a short flag", () => assertEquals(parse("-n", "32").maxTokens, 32));

Deno.test("parseArguments() takes every spelling of a flag", () => {
  for (const flag of ["-n", "--max-tokens", "--n-predict"]) assertEquals(parse(flag, "7").maxTokens, 7);
});

Deno.test("parseArguments() fills in the defaults", () => {
  const { maxTokens, temperature, topP, seed, sparseBudget, pageSize, sparse, noStream } = parse();
  assertEquals({ maxTokens, temperature, topP, seed }, {
    maxTokens: 256,
    temperature: undefined,
    topP: undefined,
    seed: undefined,
  });
  assertEquals({ sparseBudget, pageSize, sparse, noStream }, {
    sparseBudget: undefined,
    pageSize: undefined,
    sparse: "auto",
    noStream: false,
  });
});

Deno.test("parseArguments() reads 32k and 32K as 32 x 1024 tokens", () => {
  assertEquals([parse("-c", "32k").ctxSize, parse("-c", "32K").ctxSize], [32768, 32768]);
});

Deno.test("parseArguments() takes no k where tokens are not counted", () => {
  assertRefused(["--top-k", "1k"], `--top-k "1k"`, "whole number");
});

Deno.test("parseArguments() collects a flag that may be repeated", () => {
  assertEquals(parse("-f", "a", "--file=b", "--prompt-file", "c").files, ["a", "b", "c"]);
});

Deno.test("parseArguments() lets the last of two values count", () =>
  assertEquals(parse("-s", "1", "-s", "2").seed, 2));

Deno.test("parseArguments() leaves words as the prompt", () =>
  assertEquals(words("What", "-n", "3", "now"), ["What", "now"]));

Deno.test("parseArguments() ends the options at --", () => assertEquals(words("--", "--temp", "-x"), ["--temp", "-x"]));

Deno.test("parseArguments() leaves a lone dash as a word", () => assertEquals(words("-"), ["-"]));

Deno.test("parseArguments() takes text that begins with a dash as a value", () => {
  assertEquals(parse("-p", "- first point").prompt, ["- first point"]);
});

Deno.test("parseArguments() takes an option-like value after an equals sign", () => {
  assertEquals(parse("--prompt=--json").prompt, ["--json"]);
});

Deno.test("parseArguments() keeps equals signs inside a value", () => assertEquals(parse("--stop=a=b").stop, ["a=b"]));

Deno.test("parseArguments() reads the escapes of --stop", () => {
  assertEquals(parse("--stop", String.raw`\n\t\\\u{e9}`).stop, ["\n\t\\é"]);
});

Deno.test("parseArguments() refuses an unknown escape of --stop", () => {
  assertRefused(
    ["--stop", String.raw`a\q`],
    "--stop",
    String.raw`"\q"`,
  );
});

Deno.test("parseArguments() refuses an unknown flag and names the nearest", () => {
  assertRefused(["--tmp", "1"], "--tmp", "--temp");
});

Deno.test("parseArguments() refuses an unknown flag that resembles none", () => {
  assertRefused(["--xyzzy-plugh"], "--xyzzy-plugh", "--help");
});

Deno.test("parseArguments() refuses a flag without its value at the end", () => {
  assertRefused(["--temp"], "--temp X");
});

Deno.test("parseArguments() does not take the next flag as a value", () => {
  assertRefused(["-p", "--json"], "-p TEXT", "-p=--json");
});

Deno.test("parseArguments() refuses a value of a switch", () => {
  assertRefused(["--json=yes"], "--json", `"yes"`);
});

Deno.test("parseArguments() refuses text where a number is expected", () => {
  assertRefused(["--temp=abc"], `--temp "abc"`, "a number from 0 to 100");
});

Deno.test("parseArguments() refuses an empty number", () => {
  assertRefused(["--temp="], `--temp ""`, "a number from 0 to 100");
});

Deno.test("parseArguments() refuses an unknown choice", () => {
  assertRefused(["--sparse", "maybe"], `--sparse "maybe"`, "auto, on or off");
});

Deno.test("parseArguments() refuses a page size that no kernel has", () => {
  assertRefused(["--page-size", "12"], `--page-size "12"`, "8, 16, 32 or 64");
});

const outOfRange: [flag: string, value: string, range: string][] = [
  ["--top-p", "1.5", "a number above 0 and up to 1"],
  ["--top-p", "0", "a number above 0 and up to 1"],
  ["--min-p", "-0.1", "a number from 0 to 1"],
  ["--temp", "-1", "a number from 0 to 100"],
  ["--temp", "1e999", "a number from 0 to 100"],
  ["--seed", "18446744073709551616", "a whole number from 0 to 4294967295"],
  ["--seed", "-1", "a whole number from 0 to 4294967295"],
  ["--seed", "1.5", "a whole number from 0 to 4294967295"],
  ["--max-tokens", "0", "a whole number of 1 or more"],
  ["--max-tokens", "-5", "a whole number of 1 or more"],
  ["--max-tokens", "99999999999", "a whole number of 1 or more"],
  ["--repeat-penalty", "0", "a number above 0 and up to 100"],
  ["--threads", "0", "a whole number from 1 to 1024"],
  ["--sparse-budget", "0", "a whole number of 1 or more"],
];

for (const [flag, value, range] of outOfRange) {
  Deno.test(`parseArguments() refuses ${flag} ${value}`, () => {
    assertRefused([flag, value], `${flag} ${value}`, range);
  });
}

Deno.test("parseArguments() takes --verify for every step, and a number that is attached to it", () => {
  assertEquals([parse("--verify").verify, parse("--verify=16").verify, parse().verify], [1, 16, undefined]);
});

Deno.test("parseArguments() leaves the word behind --verify to the prompt, a path too", () => {
  assertEquals([words("--verify", "hi"), words("--verify", "/think")], [["hi"], ["/think"]]);
});

Deno.test("parseArguments() refuses a detached number behind --verify, which would become the prompt", () =>
  assertRefused(["--verify", "16", "hi"], "--verify=16"));

Deno.test("parseArguments() refuses --verify=0 and --verify=often", () => {
  assertRefused(["--verify=0"], "--verify");
  assertRefused(["--verify=often"], "--verify");
});
