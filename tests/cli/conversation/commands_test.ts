import { assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { commandHelp, completeCommand, parseCommand } from "../../../cli/conversation/commands.ts";
import { PagesiftError } from "../../../engine/errors.ts";

Deno.test("parseCommand separates a command from its argument", () => {
  assertEquals(parseCommand("/file  my notes.txt "), { name: "file", argument: "my notes.txt" });
});

Deno.test("parseCommand takes an argument of several lines", () => {
  assertEquals(parseCommand("/system Be brief.\nBe kind."), { name: "system", argument: "Be brief.\nBe kind." });
});

for (const line of ["What is /file?", " /quit", "/usr/bin/env is what?", "/", "/2"]) {
  Deno.test(`parseCommand takes "${line}" for a question`, () => assertEquals(parseCommand(line), undefined));
}

Deno.test("parseCommand suggests the command that was meant", () => {
  assertMatch(assertThrows(() => parseCommand("/sav a.jsonl"), PagesiftError).message, /"\/sav".*"\/save"/);
});

Deno.test("parseCommand names the argument that is missing", () => {
  assertStringIncludes(assertThrows(() => parseCommand("/load"), PagesiftError).message, "/load FILE");
});

Deno.test("commandHelp has a line for each command", () => {
  for (const name of ["file PATH", "pages", "stats", "retry", "system [TEXT]", "save FILE", "load FILE", "quit"]) {
    assertStringIncludes(commandHelp(), `/${name} `);
  }
});

Deno.test("completeCommand completes commands", () => {
  assertEquals(completeCommand("/s", () => []), [["/stats", "/system ", "/save "], "/s"]);
});

Deno.test("completeCommand completes paths after a command that takes one", () => {
  const list = (folder: string): string[] => folder === "docs/" ? ["api.md", "notes/", "inspect.md"] : [];
  assertEquals(completeCommand("/file docs/a", list), [["docs/api.md"], "docs/a"]);
});

Deno.test("completeCommand leaves questions alone", () => {
  assertEquals(completeCommand("wh", () => ["why.txt"]), [[], "wh"]);
});
