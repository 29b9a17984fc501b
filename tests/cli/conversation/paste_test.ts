import { assertEquals } from "@std/assert";
import { Pastes } from "../../../cli/conversation/paste.ts";

const [START, END] = ["\x1b[200~", "\x1b[201~"];

function keysOf(...input: string[]): { keys: string; pastes: Pastes } {
  const pastes = new Pastes();
  return { keys: input.map((piece) => pastes.filter(piece)).join(""), pastes };
}

Deno.test("Pastes passes typed keys on at once", () => {
  assertEquals(new Pastes().filter("a\x1b[D\r"), "a\x1b[D\r");
});

Deno.test("Pastes types a short paste", () => {
  assertEquals(keysOf(`a${START}b c${END}d`).keys, "ab cd");
});

Deno.test("Pastes gives pasted lines a name that contains no line break", () => {
  assertEquals(keysOf(`${START}a\rb\r${END}: explain\r`).keys, "[paste 1: 2 lines]: explain\r");
});

Deno.test("Pastes puts pasted lines in the place of their names", () => {
  const { keys, pastes } = keysOf(`${START}a\r\nb${END} and ${START}c\rd${END}`);
  assertEquals(pastes.expand(keys), "a\nb and c\nd");
});

Deno.test("Pastes leaves names that were only typed", () => {
  const { pastes } = keysOf(`${START}a\rb${END}`);
  assertEquals(pastes.expand("[paste 2: 1 line] [paste 1: 9 lines]"), "[paste 2: 1 line] [paste 1: 9 lines]");
});

Deno.test("Pastes finds markers that arrive in pieces", () => {
  const input = `x${START}a\rb${END}y`;
  assertEquals(keysOf(...input).keys, "x[paste 1: 2 lines]y");
});

Deno.test("Pastes keeps a long paste out of the line", () => {
  assertEquals(keysOf(`${START}${"long ".repeat(100)}${END}`).keys, "[paste 1: 1 line]");
});
