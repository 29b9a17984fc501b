/** Short versions of scripts/gate/soak.ts. */
import { assertEquals } from "@std/assert";
import { soakJsonl, soakRequests, type SoakResult, soakStdin, soakTokens } from "../../scripts/gate/soak.ts";
import { isolateLibrary } from "../support/device.ts";

function soakTest(name: string, run: () => Promise<SoakResult>): void {
  Deno.test(name, { ignore: Deno.build.os !== "linux" }, async () => {
    isolateLibrary();
    const { facts, problem } = await run();
    assertEquals(problem, undefined, facts);
  });
}

soakTest("Generation gives all pages and handles back after 400 short requests", () => soakRequests(400));
soakTest("generate --jsonl answers 300 lines in their order", () => soakJsonl(300));
soakTest("Engine.generate does not grow over 4,000 tokens", () => soakTokens(4000));
soakTest("generate refuses 2 GiB on stdin and reads no more than its limit", () => soakStdin(2048));
