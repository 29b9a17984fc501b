/** The tests of training (Python) as one test of the main command: skipped, and counted so, where PyTorch is missing. */
import { assert, assertEquals } from "@std/assert";
import { countsOf } from "../../scripts/gate/python_tests.ts";
import { findPython, runTrainTests } from "../../scripts/train/python.ts";

const python = findPython();

Deno.test({
  name: `training: ${python ?? "skipped, no Python with PyTorch; deno task test:train makes one"}`,
  ignore: python === undefined,
  fn: () => {
    const { success, counts, text } = runTrainTests(python!);
    assert(success, text);
    assert(counts.passed > 0 && counts.failed === 0, text);
  },
});

Deno.test("countsOf reads what unittest writes", () => {
  assertEquals(countsOf("Ran 31 tests in 8.8s\n\nOK\n"), { passed: 31, failed: 0, skipped: 0 });
  const mixed = "Ran 31 tests in 8.8s\n\nFAILED (failures=1, errors=6, skipped=2)\n";
  assertEquals(countsOf(mixed), { passed: 22, failed: 7, skipped: 2 });
  assertEquals(countsOf("Traceback (most recent call last):\n"), { passed: 0, failed: 1, skipped: 0 });
});
