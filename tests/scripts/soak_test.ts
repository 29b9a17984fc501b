/** Short versions of scripts/gate/soak.ts. */
import { assertEquals, assertMatch } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { soakJsonl, soakPrompts, soakRequests, type SoakResult, soakStdin } from "../../scripts/gate/soak.ts";
import { isolateLibrary } from "../support/device.ts";

function soakTest(name: string, run: () => Promise<SoakResult>): void {
  Deno.test(name, { ignore: Deno.build.os !== "linux" }, async () => {
    isolateLibrary();
    const { facts, problem } = await run();
    assertEquals(problem, undefined, facts);
  });
}

soakTest("Generation gives all pages and handles back after 400 short requests", () => soakRequests(400));
soakTest("No page is lost and no answer changes in 600 requests that begin alike", () => soakPrompts(600));
soakTest("generate --jsonl answers 300 lines in their order", () => soakJsonl(300));
/** In a process of its own: memory is that of a whole process, and other test files run in this one. */
Deno.test("Engine.generate does not grow over 4,000 tokens", { ignore: Deno.build.os !== "linux" }, async () => {
  const script = fromFileUrl(new URL("../../scripts/gate/soak.ts", import.meta.url));
  const args = ["run", "-A", "--no-check", script, "tokens", "--count", "4000"];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, stdin: "null" }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assertEquals(code, 0, text);
  assertMatch(text, /4000 tokens/);
});
soakTest("generate refuses 2 GiB on stdin and reads no more than its limit", () => soakStdin(2048));
