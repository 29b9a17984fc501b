/** Holds the programs of tests/native against the header: a call that the fuzzer does not know would go untried without a word. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { ROOT } from "../../scripts/release/native_library.ts";

const WITHOUT_ARGUMENTS = ["ps_abi_version"];
const MIN_CALLS = 40;

function read(...path: string[]): string {
  return Deno.readTextFileSync(join(ROOT, ...path));
}

Deno.test("the fuzzer of tests/native makes every call of pagesift.h", () => {
  const header = read("csrc", "include", "pagesift.h");
  const calls = [...header.matchAll(/^PS_API \w+ (ps_\w+)\(/gm)].map((match) => match[1]!);
  assert(calls.length >= MIN_CALLS, `${calls.length} calls`);
  const fuzzer = read("tests", "native", "calls.cpp");
  const untried = calls.filter((name) => !WITHOUT_ARGUMENTS.includes(name) && !fuzzer.includes(`${name}(`));
  assertEquals(untried, []);
});
