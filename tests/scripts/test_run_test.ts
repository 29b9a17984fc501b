import { assertEquals } from "@std/assert";
import { countFindings } from "../../scripts/gate/sanitize.ts";
import { countLine, countsOf } from "../../scripts/gate/test_run.ts";
import { archFlags } from "../../scripts/release/toolchain.ts";

Deno.test("countsOf adds ignored and filtered tests", () => {
  const output =
    "x ... ok (1ms)\n\n\x1b[32mok\x1b[0m | 12 passed (3 steps) | 0 failed | 2 ignored | 5 filtered out (3s)\n";
  assertEquals(countLine(countsOf(output)), "12 passed, 0 failed, 7 skipped");
});

Deno.test("countsOf counts an unfinished run as a failure", () => {
  assertEquals(countsOf("x ... ok\nSegmentation fault\n"), { passed: 0, failed: 1, skipped: 0 });
});

Deno.test("countFindings adds the summaries of all processes", () => {
  const output =
    "========= ERROR SUMMARY: 2 errors\n========= RACECHECK SUMMARY: 3 hazards displayed (3 errors, 0 warnings)\n";
  assertEquals(countFindings(output), 5);
});

Deno.test("countFindings distinguishes a run without findings from one without a summary", () => {
  assertEquals(countFindings("========= ERROR SUMMARY: 0 errors\n"), 0);
  assertEquals(countFindings("ok | 5 passed | 0 failed (1s)\n"), undefined);
});

Deno.test("archFlags keeps PTX of the last architecture, unless it is for one GPU only", () => {
  assertEquals(archFlags(["80", "100"]), [
    ...["-gencode", "arch=compute_80,code=sm_80"],
    ...["-gencode", "arch=compute_100,code=[sm_100,compute_100]"],
  ]);
  assertEquals(archFlags(["90a"]), ["-gencode", "arch=compute_90a,code=sm_90a"]);
});
