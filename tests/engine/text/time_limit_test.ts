import { assert, assertEquals, assertThrows } from "@std/assert";
import { TimeLimitError, withTimeLimit } from "../../../engine/text/time_limit.ts";

Deno.test("withTimeLimit ends a regular expression that goes on for ever", () => {
  const started = performance.now();
  assertThrows(() => withTimeLimit(0.2, () => /(a*)*b/.test("a".repeat(40))), TimeLimitError, "longer than 0 s");
  assert(performance.now() - started < 60_000); // on a busy machine, too
});

Deno.test("withTimeLimit ends a loop that catches everything", () => {
  const stubborn = (): number => {
    let turns = 0;
    for (;;) {
      try {
        while (turns >= 0) turns++;
      } catch {
        turns = 0;
      }
    }
  };
  assertThrows(() => withTimeLimit(0.2, stubborn), TimeLimitError);
});

Deno.test("withTimeLimit passes results and errors through", () => {
  const list = [1];
  assert(withTimeLimit(1, () => list) === list);
  assertThrows(() => withTimeLimit(1, () => assertEquals(1, 2)), Error, "1");
  assertEquals(withTimeLimit(1, () => "after an error"), "after an error");
});
